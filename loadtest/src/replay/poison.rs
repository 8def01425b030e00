//! Messages that nobody can read, in an issuer's lanes: what another client of the broker with valid credentials can send.

use anyhow::Result;
use lapin::{BasicProperties, Connection, ConnectionProperties, options::BasicPublishOptions};

use super::installation::Installation;

/// Of each kind, to each queue.
const MESSAGES: usize = 100;

/// Sends them. Where lanes are in the memory of one process, nobody else reaches them.
pub async fn pour(installation: &Installation, issuer: &str) -> Result<()> {
    let Installation::Many(grown) = installation else {
        return Ok(());
    };
    let address = format!("amqp://guest:guest@{}/%2f", grown.rabbitmq.address());
    let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let queues = grown.rabbitmq.list("list_queues", &["name"]).await?;
    let noise: Vec<u8> = (0..4_096_u32).map(|number| number.to_le_bytes()[0] ^ 0x5a).collect();
    let kinds: [&[u8]; 4] = [b"", &noise, b"{\"version\":4294967295}", b"[[[[[[[[[[[[[[[["];
    for queue in queues.iter().filter(|queue| queue.contains(issuer)) {
        for kind in kinds.iter().cycle().take(kinds.len() * MESSAGES) {
            let published = channel.basic_publish(
                "".into(),
                queue.as_str().into(),
                BasicPublishOptions::default(),
                kind,
                BasicProperties::default(),
            );
            published.await?;
        }
    }
    connection.close(200, "".into()).await?;
    Ok(())
}

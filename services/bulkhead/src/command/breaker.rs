//! `bulkhead breaker`.

use wire::{client::AdminClient, operate::ForceBreaker};

use super::{render, session::Session};
use crate::{
    cli::{BreakerCommand, Common},
    failure::Outcome,
};

pub(super) async fn run(common: &Common, command: BreakerCommand) -> Outcome {
    let session = Session::open(common)?;
    match command {
        BreakerCommand::List => {
            let breakers = session.ask(AdminClient::breakers).await?;
            common.output.print(&breakers, || render::breakers(&breakers))
        }
        BreakerCommand::Force(order) => {
            let request = ForceBreaker {
                force: order.order.into(),
                reason: order.reason,
            };
            let forced = session.ask(|api| api.force_breaker(&order.issuer, &request)).await?;
            common.output.print(&forced, || render::forced(&forced))
        }
    }
}

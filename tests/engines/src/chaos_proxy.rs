//! A TCP link that can be cut, restored, delayed, cut in mid-stream and swallowed, in front of any address on loopback.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// Chunks on their way in one direction of one connection; whoever sends more waits, as TCP's own window would have it.
const CHUNKS: usize = 256;

/// How the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Cut,
    BlackHole,
}

#[derive(Debug)]
struct Conditions {
    link: watch::Sender<Link>,
    delay: watch::Sender<Duration>,
    /// How many more bytes of clients pass before the link is cut.
    allowance: Mutex<Option<u64>>,
}

/// The proxy. Dropping it ends all of its connections.
#[derive(Debug)]
pub struct ChaosProxy {
    address: SocketAddr,
    conditions: Arc<Conditions>,
    accepting: JoinHandle<()>,
}

impl ChaosProxy {
    /// Listens on a free port of loopback, and connects to `upstream` for each connection that comes in.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let conditions = Arc::new(Conditions {
            link: watch::Sender::new(Link::Up),
            delay: watch::Sender::new(Duration::ZERO),
            allowance: Mutex::new(None),
        });
        let accepting = tokio::spawn(accept(listener, upstream, conditions.clone()));
        Ok(Self {
            address,
            conditions,
            accepting,
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and new ones as soon as they come, until [`ChaosProxy::restore`].
    pub fn cut(&self) {
        self.conditions.link.send_replace(Link::Cut);
    }

    /// Accepts connections and swallows what they say, and what is said to them, until the link is cut or restored. A connection that
    /// lost bytes this way does not go on: restoring ends it.
    pub fn black_hole(&self) {
        self.conditions.link.send_replace(Link::BlackHole);
    }

    /// Undoes all of the other functions, for new connections.
    pub fn restore(&self) {
        *lock(&self.conditions.allowance) = None;
        self.conditions.delay.send_replace(Duration::ZERO);
        self.conditions.link.send_replace(Link::Up);
    }

    /// From now on bytes arrive this much later, in each direction.
    pub fn delay(&self, each_way: Duration) {
        self.conditions.delay.send_replace(each_way);
    }

    /// Cuts the link when clients have sent this many more bytes, all connections together. The bytes up to there arrive.
    pub fn cut_after(&self, bytes: u64) {
        *lock(&self.conditions.allowance) = Some(bytes);
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, upstream: SocketAddr, conditions: Arc<Conditions>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let conditions = conditions.clone();
        tokio::spawn(async move {
            let link = *conditions.link.borrow();
            if link != Link::Cut
                && let Ok(server) = TcpStream::connect(upstream).await
            {
                carry(client, server, &conditions).await;
            }
        });
    }
}

/// Carries both directions until one is done or the link is cut; both ends are closed then.
async fn carry(client: TcpStream, server: TcpStream, conditions: &Conditions) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut link = conditions.link.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let swallowed = async {
        let _ = link.wait_for(|link| *link == Link::BlackHole).await;
        let _ = link.wait_for(|link| *link != Link::BlackHole).await;
    };
    let mut cut = conditions.link.subscribe();
    tokio::select! {
        () = direction(from_client, to_server, conditions, true) => {}
        () = direction(from_server, to_client, conditions, false) => {}
        _ = cut.wait_for(|link| *link == Link::Cut) => {}
        () = swallowed => {}
    }
}

async fn direction<R, W>(mut from: R, mut to: W, conditions: &Conditions, of_client: bool)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            if *conditions.link.borrow() == Link::BlackHole {
                continue;
            }
            let due = Instant::now() + *conditions.delay.borrow();
            let passing = if of_client { allowed(conditions, count) } else { count };
            if sender.send((due, buffer[..passing].to_vec())).await.is_err() || passing < count {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = receiver.recv().await {
            sleep_until(due).await;
            if *conditions.link.borrow() != Link::BlackHole && to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        if lock(&conditions.allowance).is_some_and(|left| left == 0) {
            conditions.link.send_replace(Link::Cut);
        }
    };
    tokio::join!(read, write);
}

/// How many of these bytes of a client still pass.
fn allowed(conditions: &Conditions, count: usize) -> usize {
    let mut allowance = lock(&conditions.allowance);
    let Some(left) = allowance.as_mut() else { return count };
    let passing = u64::try_from(count).unwrap_or(u64::MAX).min(*left);
    *left -= passing;
    usize::try_from(passing).unwrap_or(count)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_millis(200);

    /// A server that says everything back, and what it heard.
    async fn echo() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, hears) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        let _ = heard.send(buffer[..count].to_vec());
                        let _ = stream.write_all(&buffer[..count]).await;
                    }
                });
            }
        });
        (address, hears)
    }

    async fn answers(client: &mut TcpStream, text: &str) -> bool {
        if client.write_all(text.as_bytes()).await.is_err() {
            return false;
        }
        let mut buffer = vec![0; text.len()];
        let read = timeout(SOON, client.read_exact(&mut buffer)).await;
        read.expect("the link neither carried nor ended").is_ok() && buffer == text.as_bytes()
    }

    #[tokio::test]
    async fn a_cut_ends_old_and_new_connections_until_it_is_restored() {
        let (upstream, _hears) = echo().await;
        let proxy = ChaosProxy::start(upstream).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut client, "before").await);
        proxy.cut();
        assert!(!answers(&mut client, "meanwhile").await);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!answers(&mut new, "meanwhile").await);
        proxy.restore();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut new, "after").await);
    }

    #[tokio::test]
    async fn a_delay_holds_bytes_back_and_keeps_their_order() {
        let (upstream, _hears) = echo().await;
        let proxy = ChaosProxy::start(upstream).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.delay(Duration::from_millis(100));
        let begun = Instant::now();
        for number in 0..10 {
            client.write_all(format!("{number}").as_bytes()).await.unwrap();
        }
        let mut all = [0; 10];
        timeout(SOON, client.read_exact(&mut all)).await.unwrap().unwrap();
        assert_eq!(&all, b"0123456789");
        assert!(begun.elapsed() >= Duration::from_millis(200), "both ways are delayed");
    }

    #[tokio::test]
    async fn a_link_is_cut_after_exactly_so_many_bytes() {
        let (upstream, mut hears) = echo().await;
        let proxy = ChaosProxy::start(upstream).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.cut_after(10);
        assert!(answers(&mut client, "123456").await);
        let _ = client.write_all(b"7890abcdef").await;
        let mut rest = Vec::new();
        let _ = timeout(SOON, client.read_to_end(&mut rest))
            .await
            .expect("the link should end");
        let mut heard = Vec::new();
        while let Ok(Some(bytes)) = timeout(QUIET, hears.recv()).await {
            heard.extend(bytes);
        }
        assert_eq!(heard, b"1234567890");
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!answers(&mut new, "x").await);
        proxy.restore();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut new, "everything passes again").await);
    }

    #[tokio::test]
    async fn a_black_hole_accepts_and_swallows() {
        let (upstream, mut hears) = echo().await;
        let proxy = ChaosProxy::start(upstream).await.unwrap();
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut old, "before").await);
        assert_eq!(hears.recv().await.unwrap(), b"before");
        proxy.black_hole();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        for client in [&mut old, &mut new] {
            client.write_all(b"swallowed").await.unwrap();
            let mut buffer = [0; 1];
            assert!(
                timeout(QUIET, client.read(&mut buffer)).await.is_err(),
                "nothing comes back, and nothing ends"
            );
        }
        assert!(hears.try_recv().is_err());
        proxy.restore();
        assert!(!answers(&mut old, "after").await, "bytes were lost here");
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut new, "after").await);
    }
}

//! What clients call this host, and the URLs that follow from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use crate::failure::{Failure, Outcome};

/// The name of this host for whatever listens where that name leads.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    own: IpAddr,
}

impl Host {
    /// The first of its names, which leads to `listen`; without one that address.
    pub fn of(names: &[String], listen: IpAddr) -> Self {
        let name = names
            .first()
            .map_or_else(|| literal(reachable(listen)), |name| literal_or_name(name));
        Self { name, own: listen }
    }

    /// Base of a URL to one of the listeners of this host.
    pub fn url(&self, scheme: &str, listener: &TcpListener) -> Outcome<String> {
        let address = listener.local_addr().map_err(Failure::failed)?;
        // The name is one listener's; others may listen elsewhere.
        let host = if address.ip() == self.own {
            self.name.clone()
        } else {
            literal(reachable(address.ip()))
        };
        Ok(format!("{scheme}://{host}:{}", address.port()))
    }
}

fn literal_or_name(name: &str) -> String {
    name.parse().map_or_else(|_| name.to_owned(), literal)
}

/// An address as it stands in a URL (RFC 3986, section 3.2.2).
fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// "Every address of this host" is none that a client can connect to; its own is.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_urls_want_them() {
        assert_eq!(literal(reachable("::".parse().unwrap())), "[::1]");
        assert_eq!(literal(reachable("0.0.0.0".parse().unwrap())), "127.0.0.1");
        assert_eq!(literal_or_name("pki.example.com"), "pki.example.com");
    }

    #[test]
    fn the_name_is_for_listeners_at_its_own_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = ["ca.example.com".to_owned()];
        let url = |names: &[String], listen: &str| {
            Host::of(names, listen.parse().unwrap())
                .url("https", &listener)
                .unwrap()
        };
        assert_eq!(url(&names, "127.0.0.1"), format!("https://ca.example.com:{port}"));
        assert_eq!(url(&names, "192.0.2.1"), format!("https://127.0.0.1:{port}"));
        assert_eq!(url(&[], "127.0.0.1"), format!("https://127.0.0.1:{port}"));
    }
}

//! Where everything listens, and what it is called from outside.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
};

use runtime::{
    config::{Config, NodeRole},
    ports::Ports,
};

use crate::{
    cli::Up,
    compose::{Host, Urls},
    failure::{Failure, Outcome},
};

/// The addresses to listen on. Port 0 takes a free port once and keeps it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    hvca: SocketAddr,
    admin: SocketAddr,
    metrics: SocketAddr,
    /// Where OCSP and CRLs will be served; `None` when `public_url` says so already.
    status: Option<SocketAddr>,
}

/// Listeners that are bound: whatever is told about them is true from now on.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) hvca: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) metrics: TcpListener,
    pub(super) status: Option<TcpListener>,
    /// What clients call this host.
    pub(super) host: Host,
}

/// The configuration with what the command line says on top of it.
pub(super) fn configure(up: &Up) -> Outcome<(Config, Addresses)> {
    let mut config = match &up.config {
        None => Config::default(),
        Some(file) => crate::process::configure(file, NodeRole::All)?,
    };
    if let Some(data) = &up.data {
        config.place.data_dir.clone_from(data);
    }
    let place = &mut config.place;
    if let Some(listen) = up.listen {
        place.listen = listen;
        // A free port for one is a free port for all, or a second installation on the same host would meet the first one's.
        if listen.port() == 0 {
            for other in [&mut place.admin_listen, &mut place.metrics_listen] {
                *other = listen;
            }
        }
    }
    if let Some(url) = &up.public_url {
        place.public_url.clone_from(url);
    }
    let is_default = up.public_url.is_none() && place.public_url == Config::default().place.public_url;
    let status = (is_default && place.listen.port() == 0).then(|| SocketAddr::new(place.listen.ip(), 0));
    let addresses = Addresses {
        hvca: place.listen,
        admin: place.admin_listen,
        metrics: place.metrics_listen,
        status,
    };
    config.check().map_err(|(key, problem)| {
        let file = up
            .config
            .as_deref()
            .map_or("command line".into(), |file| file.display().to_string());
        Failure::usage(format_args!("{file}: {key}: {problem}"))
    })?;
    Ok((config, addresses))
}

impl Addresses {
    /// Binds all of them, or none.
    pub(super) fn bind(&self, data: &Path, config: &Config) -> Outcome<Bound> {
        let mut ports = Ports::open(data).map_err(Failure::failed)?;
        let mut bind = |name, address| ports.bind(name, address).map_err(Failure::failed);
        Ok(Bound {
            hvca: bind("hvca", self.hvca)?,
            admin: bind("admin", self.admin)?,
            metrics: bind("metrics", self.metrics)?,
            status: self.status.map(|address| bind("status", address)).transpose()?,
            host: Host::of(&config.place.names, self.hvca.ip()),
        })
    }
}

impl Bound {
    /// Base of the URLs in certificates of new issuers.
    pub(super) fn public_url(&self, config: &Config) -> Outcome<String> {
        match &self.status {
            Some(listener) => self.host.url("http", listener),
            None => Ok(config.place.public_url.clone()),
        }
    }

    /// Where everything is, for the context file.
    pub(super) fn urls(&self) -> Outcome<Urls> {
        Ok(Urls {
            api: Some(self.host.url("https", &self.hvca)?),
            admin: self.host.url("https", &self.admin)?,
            metrics: self.host.url("http", &self.metrics)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Up {
        Up {
            data: None,
            config: None,
            listen: None,
            public_url: None,
            ready_file: None,
        }
    }

    #[test]
    fn port_0_takes_free_ports_for_every_listener() {
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let (config, addresses) = configure(&Up { listen, ..up() }).unwrap();
        for address in [
            addresses.hvca,
            addresses.admin,
            addresses.metrics,
            addresses.status.unwrap(),
        ] {
            assert_eq!(address.port(), 0);
        }
        let directory = tempfile::tempdir().unwrap();
        let bound = addresses.bind(directory.path(), &config).unwrap();
        let url = bound.public_url(&config).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        let ports = |bound: Bound| {
            [
                &bound.hvca,
                &bound.admin,
                &bound.metrics,
                bound.status.as_ref().unwrap(),
            ]
            .map(|listener| listener.local_addr().unwrap().port())
        };
        let first = ports(bound);
        assert_eq!(ports(addresses.bind(directory.path(), &config).unwrap()), first);
    }

    #[test]
    fn a_public_url_that_is_given_is_the_one_that_counts() {
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let public_url = Some("http://pki.example.com".to_owned());
        let (config, addresses) = configure(&Up {
            listen,
            public_url,
            ..up()
        })
        .unwrap();
        assert!(addresses.status.is_none());
        assert_eq!(config.place.public_url, "http://pki.example.com");
    }

    #[test]
    fn a_public_url_that_is_none_is_refused_by_name() {
        let public_url = Some("ftp://x/".to_owned());
        let failure = configure(&Up { public_url, ..up() }).unwrap_err().to_string();
        assert!(failure.contains("place.public_url"), "{failure}");
    }
}

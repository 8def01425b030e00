//! The real engines for tests and load: private RabbitMQ nodes and PostgreSQL servers in temporary directories on loopback, and a TCP
//! proxy that cuts and delays links. Knows nothing of Bulkhead.

pub mod chaos_proxy;
pub mod postgres;
pub mod rabbitmq;

pub use postgres::Postgres;

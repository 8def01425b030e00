//! The AMQP adapter against real RabbitMQ nodes: the contract of every broker, logins, and what a broker, an operator or a link can do to
//! it.

mod bench;
mod contract;
mod faults;
mod login;
mod scale;

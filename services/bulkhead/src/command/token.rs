//! `bulkhead token`.

use std::{fs, io};

use domain::id::TokenId;
use runtime::config::Config;
use serde::Serialize;

use crate::{
    cli::{Output, TokenCommand, TokenRetry},
    compose::refused_file,
    failure::{Failure, Outcome},
};

#[derive(Serialize)]
struct Retried {
    token: TokenId,
    /// What the token said when it refused the login; nothing if it did not.
    refusal: Option<String>,
}

pub(super) fn run(output: Output, command: TokenCommand) -> Outcome {
    let TokenCommand::Retry(TokenRetry { token, config, data }) = command;
    let file = config;
    let config = Config::load(&file).map_err(Failure::usage)?;
    if !config.token.iter().any(|known| *known.name() == token) {
        return Err(Failure::usage(format_args!(
            "{}: there is no [[token]] with the name {token}",
            file.display()
        )));
    }
    let refused = refused_file(&data.unwrap_or(config.place.data_dir), &token);
    let refusal = match fs::read_to_string(&refused).and_then(|why| fs::remove_file(&refused).map(|()| why)) {
        Ok(why) => Some(why),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(Failure::failed(format_args!(
                "{}: cannot be removed: {error}",
                refused.display()
            )));
        }
    };
    let retried = Retried { token, refusal };
    output.print(&retried, || match &retried.refusal {
        Some(why) => format!(
            "{}: will be asked once more; it had refused the login: {why}\n",
            retried.token
        ),
        None => format!("{}: has not refused its PIN here\n", retried.token),
    })
}

//! `bulkhead config`.

use std::path::Path;

use runtime::config::{Config, sample};
use serde::Serialize;

use crate::{
    cli::{ConfigCommand, Output},
    failure::{Failure, Outcome},
};

#[derive(Serialize)]
struct Checked<'a> {
    file: &'a Path,
    config: Config,
}

pub(super) fn run(output: Output, command: ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Sample => output.print(&Config::default(), || sample().to_owned()),
        ConfigCommand::Check { file } => {
            let config = Config::load(&file).map_err(Failure::usage)?;
            let checked = Checked { file: &file, config };
            output.print(&checked, || format!("{}: nothing wrong with it\n", file.display()))
        }
    }
}

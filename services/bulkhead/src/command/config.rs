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
        ConfigCommand::Sample { role } => {
            let text = sample(role.into());
            let config = Config::parse(Path::new("sample"), text).map_err(Failure::failed)?;
            output.print(&config, || text.to_owned())
        }
        ConfigCommand::Check { file } => {
            let config = Config::load(&file).map_err(Failure::usage)?;
            let checked = Checked { file: &file, config };
            output.print(&checked, || format!("{}: nothing wrong with it\n", file.display()))
        }
    }
}

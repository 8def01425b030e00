//! The program `bulkhead`: everything in one process, one part of it, or an operator's command.

mod cli;
mod client_key;
mod command;
mod compose;
mod failure;
mod output;
mod process;
mod progress;
mod up;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use failure::Failure;

/// What one thread allocates and another frees is the rule here, and what it is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(command::run(&cli.common, cli.command));
            // What still blocks (a token that hangs) is not waited for.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::failed(format_args!("cannot start threads: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

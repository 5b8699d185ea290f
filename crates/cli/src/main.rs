//! `carrack`: containers and images for people.
//!
//! ```text
//! argv ─► args (clap) ─► config (file, then flags) ─► commands/VERB ─► carrack-engine
//!                                                        │
//!                                                     console (terminal, pumps, signals)
//! ```
//!
//! Contract: results go to standard output, everything else to standard error. Errors are printed once,
//! with their causes. Exit codes: 125 for a failure of Carrack's own, else those of the verb (`run`: the
//! command's). The terminal is as it was before when the program ends, however it ends.

mod args;
mod commands;
mod config;
mod console;
mod image_args;
mod json;
mod logging;
mod manifest_args;
mod progress;
mod registry_args;
mod rootless;
mod table;
mod template;
mod time;

use args::{Cli, Verb};
use carrack_engine::images::ImagesError;
use carrack_engine::{Engine, EngineError};
use clap::Parser;
use commands::image;
use std::process::ExitCode;

/// Exit code of a failure of Carrack itself, as docker's users know it.
const CODE_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { CODE_FAILURE } else { 0 });
        }
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("carrack: {}", sentence(&error));
            let code = error
                .downcast_ref::<EngineError>()
                .map_or(CODE_FAILURE, EngineError::exit_code);
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    let (options, level) = config::settle(&cli.global)?;
    logging::start(level);
    if let Some(code) = commands::without_engine(&cli.verb)? {
        return Ok(code);
    }
    let options = options.with_defaults();
    rootless::enter(&cli.verb)?;
    let engine = Engine::open(options)?;
    match cli.verb {
        Verb::Run(flags) => commands::run::run(&engine, *flags),
        Verb::Load(flags) => image::archive::load(&engine, &flags),
        Verb::Save(flags) => image::archive::save(&engine, &flags),
        Verb::Import(flags) => image::archive::import(&engine, &flags),
        Verb::Images(flags) => image::list::list(&engine, &flags),
        Verb::History(flags) => image::show::history(&engine, &flags),
        Verb::Tag(flags) => image::change::tag(&engine, &flags),
        Verb::Untag(flags) => image::change::untag(&engine, &flags),
        Verb::Rmi(flags) => image::change::remove(&engine, &flags),
        Verb::Ps(flags) => commands::containers::list(&engine, &flags),
        Verb::Rm(flags) => commands::containers::remove(&engine, &flags),
        Verb::Pull(flags) => image::transfer::pull(&engine, &flags),
        Verb::System(verb) => commands::system::system(&engine, &verb),
        Verb::Image(verb) => image::image(&engine, &verb),
        Verb::Manifest(verb) => commands::manifest::manifest(&engine, &verb),
        Verb::Push(flags) => image::transfer::push(&engine, &flags),
        Verb::Search(_) | Verb::Login(_) | Verb::Logout(_) | Verb::Version => Ok(0),
    }
}

/// An error and its causes in one line, with what to do about it; a cause that the text before it
/// already tells is left out.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    let of_engine = error
        .downcast_ref::<EngineError>()
        .and_then(EngineError::hint);
    let of_images = error
        .downcast_ref::<ImagesError>()
        .and_then(ImagesError::hint);
    match of_engine.or(of_images) {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

//! casd without its rule for what may be dialled: `unfiltered --config FILE`. What the rule keeps from being dialled
//! shows only where there is none; there is no other way to run casd like this.

use std::process::ExitCode;

use casd::app::{self, Process};
use casd::config::{Config, Environment};
use casd::support::shutdown::Signals;
use casd::support::systemd::{self, Notifier};

fn main() -> ExitCode {
    let file = std::env::args_os().nth(2).unwrap_or_default();
    let environment = Environment::of_process();
    let read = move || Config::load(file.as_ref(), &environment);
    match run(Box::new(read)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unfiltered: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(read: app::Reload) -> Result<(), Box<dyn std::error::Error>> {
    let config = read()?;
    let notifier = Notifier::new(&systemd::Environment::of_process())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let process = Process { signals, notifier, socket: None, reload: read, dials_everything: true };
        Ok(Box::pin(app::run(config, process)).await?)
    })
}

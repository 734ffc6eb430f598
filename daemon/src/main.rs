//! The casd daemon: arguments, settings, telemetry, then [`casd::app::run`].

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use casd::app::{self, Process};
use casd::args::{Args, EXIT_CONFIG, EXIT_FAILED, EXIT_STORE_TOO_NEW};
use casd::config::{self, Config};
use casd::support::shutdown::Signals;
use casd::support::systemd::{self, Notifier};
use casd::support::telemetry;

/// How long blocking calls may go on after everything has ended: what a caller's file system or a name server does not
/// answer is not waited for.
const LAST_CALLS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    casd::api::memory::keep();
    let args = match Args::of_process() {
        Ok(args) => args,
        Err(code) => return code,
    };
    if args.gen_key {
        return gen_key();
    }
    let config = match read(&args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("casd: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if args.check_config {
        config.warnings.iter().for_each(|warning| eprintln!("casd: warning: {warning}"));
        return ExitCode::SUCCESS;
    }
    match serve(args, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            let too_new = matches!(error, app::Error::Store(casd::store::Error::TooNew { .. }));
            ExitCode::from(if too_new { EXIT_STORE_TOO_NEW } else { EXIT_FAILED })
        }
    }
}

/// Prints what a network's key file holds.
fn gen_key() -> ExitCode {
    let key = format!("{}\n", hex::encode(rand::random::<[u8; 32]>()));
    let mut out = std::io::stdout().lock();
    match out.write_all(key.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casd: the key cannot be written: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn read(args: &Args) -> Result<Config, config::Error> {
    let environment = config::Environment::of_process();
    match &args.config {
        Some(file) => Config::load(file, &environment),
        None => Config::defaults(&environment),
    }
}

fn serve(args: Args, config: Config) -> Result<(), app::Error> {
    // A second subscriber cannot be: this is the first thing that the process does.
    let _ = telemetry::start(&telemetry::Settings::of_process());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), state = %config.node.state_dir.display(), "casd starts");
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if args.rebuild_index {
        app::forget_index(&config)?;
    }
    let environment = systemd::Environment::of_process();
    let notifier = Notifier::new(&environment).map_err(app::Error::Runtime)?;
    // While there is one thread: what systemd hands over is taken out of the environment.
    let socket = systemd::api_socket().map_err(app::Error::Runtime)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(app::Error::Runtime)?;
    let ended = runtime.block_on(async {
        let process = Process {
            signals: Signals::listen().map_err(app::Error::Runtime)?,
            notifier,
            socket,
            reload: Box::new(move || read(&args)),
            dials_everything: false,
        };
        Box::pin(app::run(config, process)).await
    });
    runtime.shutdown_timeout(LAST_CALLS);
    ended
}

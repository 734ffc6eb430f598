//! Networks of many nodes in one process: what look-ups come to as a network grows, while nodes come and go, after it
//! was cut in two, and among liars.
//!
//! `scale [--seed N] [--look-ups N] [--minutes N] [--keys N] [--cut] [--sybils G] [--impostors N] [--flood G]
//! NODES...`: one network of each size after the other, each from the seed. Prints a table; exit 1 when a bound is
//! missed. `scale --table`: what announcing costs, by nodes and keys. The nodes are real `dht` rooms; only what
//! carries their bytes is in memory (see `hosts`).

mod hops;
mod hosts;
mod impostors;
mod liar;
mod node;
mod siege;
mod table;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use table::Table;
use world::{Placed, World};

/// Keys that all nodes together announce…
const KEYS: usize = 1_000;
/// …of which each has so many at least and at most.
const EACH: (usize, usize) = (1, 10);
/// Of the nodes, so many leave in ten minutes while look-ups go on.
const LEAVING: f64 = 0.2;
/// Liars around one key.
const SYBILS: usize = 60;
/// Networks that impostors are of.
const IMPOSTORS_NETWORKS: usize = 10;
/// Nodes between two lines that tell how far a large network has grown.
const SHOWN: usize = 100;
/// Look-ups between two looks at the clock.
const LOOK_UPS_AT_A_TIME: usize = 40;

#[derive(Parser)]
#[command(about = "Networks of many nodes in one process", long_about = None)]
struct Args {
    /// Fixes topology, load and faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Look-ups of each row.
    #[arg(long, default_value_t = 1_000)]
    look_ups: usize,
    /// How long nodes come and go; a minute if not said, and not at all where it is calm.
    #[arg(long)]
    minutes: Option<f64>,
    /// Keys that one node announces besides, of which each is kept by four others.
    #[arg(long, default_value_t = 0)]
    keys: usize,
    /// Cut the network in two halves and join them again.
    #[arg(long)]
    cut: bool,
    /// Besiege a key by Sybils of so many networks; several times if need be.
    #[arg(long)]
    sybils: Vec<usize>,
    /// So many say that they hold a key that one holds, from ten networks.
    #[arg(long, default_value_t = 0)]
    impostors: usize,
    /// Half as many liars as nodes come in, of so many networks, and then more nodes; several times if need be.
    #[arg(long)]
    flood: Vec<usize>,
    /// Instead of all else: what announcing 1,000 to 1,000,000 keys costs one node of networks of each size.
    #[arg(long)]
    table: bool,
    /// No node comes or goes, and none lies, unless that is asked for.
    #[arg(long)]
    calm: bool,
    /// Nodes do not mind how many others are of one address group.
    #[arg(long)]
    undefended: bool,
    /// Sizes of the networks.
    #[arg(required_unless_present = "table")]
    nodes: Vec<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    println!("seed {}", args.seed);
    let mut table = Table::new();
    if args.table {
        let sizes = if args.nodes.is_empty() { vec![10, 50, 200] } else { args.nodes.clone() };
        if let Err(error) = runtime.block_on(announcing(&args, &sizes, &mut table)) {
            return failed(&error);
        }
        return if table.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    for size in &args.nodes {
        if let Err(error) = runtime.block_on(network(&args, *size, &mut table)) {
            return failed(&error);
        }
    }
    if table.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("scale: {error}");
    ExitCode::from(2)
}

/// Keys that each node of a network announces.
fn each(nodes: usize) -> usize {
    (KEYS / nodes.max(1)).clamp(EACH.0, EACH.1)
}

/// The life of one network.
async fn network(args: &Args, size: usize, table: &mut Table) -> Result<(), String> {
    let mut world = World::new(args.seed, !args.undefended);
    let begun = Instant::now();
    for part in (SHOWN..size).step_by(SHOWN).chain([size]) {
        world.grow(part).await?;
        let (seconds, dials) = (begun.elapsed().as_secs_f64(), world.dials());
        println!("{part:>6}  grown in {seconds:.0} s, {dials:.0} dials a node");
    }
    let Placed { keys, placed, look_ups, messages } = world.announce(each(world.nodes.len())).await;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{size:>6}  {placed} of {keys} keys placed after {seconds:.0} s, {look_ups} look-ups, {messages} messages"
    );
    if placed < keys {
        return Err("not all keys were placed".into());
    }
    let found = world.look_up(args.look_ups).await;
    table.row(&world, "grown", &found, 99.9).await;
    let (median, most) = world.hops().await;
    println!("{size:>6}  {median} hops to a key, at most {most}");
    if args.keys > 0 {
        many_keys(args, &mut world, table).await;
    }
    let minutes = args.minutes.unwrap_or(if args.calm { 0.0 } else { 1.0 });
    if minutes > 0.0 {
        churn(minutes, &mut world, table).await?;
    }
    if args.cut {
        parted(args, &mut world, table).await;
    }
    if args.impostors > 0 {
        pretended(args, &mut world, table).await?;
    }
    if !args.calm {
        lied_to(args, &mut world, table).await?;
    }
    for networks in args.flood.iter().copied() {
        flooded(args, &mut world, networks, table).await?;
    }
    for networks in args.sybils.iter().copied() {
        besieged(args, &mut world, networks, table).await?;
    }
    world.end().await;
    Ok(())
}

/// What announcing costs, by the number of nodes and of keys.
async fn announcing(args: &Args, sizes: &[usize], table: &mut Table) -> Result<(), String> {
    println!(
        "{:>6} {:>9} {:>7} {:>8} {:>8} {:>9} {:>13} {:>5}",
        "nodes", "keys", "s", "look-ups", "messages", "refused", "found again", "MiB"
    );
    for size in sizes.iter().copied() {
        let mut world = World::new(args.seed, !args.undefended);
        world.grow(size).await?;
        for keys in [1_000, 10_000, 100_000, 1_000_000] {
            let many = world.announce_many(keys).await;
            let (audited, found) = many.audited;
            println!(
                "{size:>6} {keys:>9} {:>7.1} {:>8} {:>8} {:>9} {:>13} {:>5}",
                many.seconds,
                many.look_ups,
                many.messages,
                many.refused,
                format!("{found} of {audited}"),
                many.own >> 20,
            );
            table.bound(many.queued == 0, "not all keys were announced");
            table.bound(found as f64 >= 0.95 * audited as f64, "too few keys are found when looked up again");
        }
        world.end().await;
    }
    Ok(())
}

/// One node announces many keys, as the schedule does, and some are looked up from everywhere.
async fn many_keys(args: &Args, world: &mut World, table: &mut Table) {
    let many = world.announce_many(args.keys).await;
    let size = world.nodes.len();
    let (audited, found) = many.audited;
    println!(
        "{size:>6}  {} keys placed in {:.1} s by {} look-ups and {} messages, {} left; {} placements refused; {found} of \
         {audited} found when looked up again; {} MiB for the keys",
        many.placed,
        many.seconds,
        many.look_ups,
        many.messages,
        many.queued,
        many.refused,
        many.own >> 20,
    );
    let object = many.object.map_or(f64::INFINITY, |after| after.as_secs_f64());
    println!("{size:>6}  an object added meanwhile was found by all after {object:.2} s");
    table.bound(many.queued == 0, "not all keys were announced");
    table.bound(found as f64 >= 0.95 * audited as f64, "too few keys are found when looked up again");
    let found = world.look_up_last(args.look_ups, args.keys).await;
    table.row(world, "audited of these", &found, 95.0).await;
}

/// Nodes come and go for some minutes, while others look up.
async fn churn(minutes: f64, world: &mut World, table: &mut Table) -> Result<(), String> {
    let (begun, length) = (Instant::now(), Duration::from_secs_f64(60.0 * minutes));
    let each = Duration::from_secs_f64(600.0 / (LEAVING * world.nodes.len() as f64));
    let (mut next, mut found) = (begun, Vec::new());
    while begun.elapsed() < length {
        if next <= Instant::now() {
            world.replace(1).await?;
            next += each;
        }
        found.extend(world.look_up(LOOK_UPS_AT_A_TIME).await);
    }
    table.row(world, "20 % leave in ten minutes", &found, 99.0).await;
    Ok(())
}

/// Half the network is cut off, and joined again.
async fn parted(args: &Args, world: &mut World, table: &mut Table) {
    world.cut(true);
    let found = world.look_up(args.look_ups / 10).await;
    table.row(world, "cut in two halves", &found, 0.0).await;
    world.cut(false);
    let mut rounds = 0;
    loop {
        rounds += 1;
        let found = world.look_up(args.look_ups).await;
        let is_whole =
            found.iter().filter(|one| one.after.is_some()).count() as f64 >= 0.999 * found.len() as f64;
        let bound = if is_whole || rounds == 5 { 99.9 } else { 0.0 };
        table.row(world, &format!("joined again, round {rounds}"), &found, bound).await;
        if is_whole || rounds == 5 {
            break;
        }
    }
}

/// Liars are the nearest to a key, and hosts of few networks.
async fn besieged(args: &Args, world: &mut World, networks: usize, table: &mut Table) -> Result<(), String> {
    let key = world.besiege(SYBILS, networks).await?;
    let found = world.look_up_besieged(key, args.look_ups).await;
    // Where each of them is in a network of its own nothing tells them from honest nodes.
    let bound = if networks < SYBILS && !args.undefended { 95.0 } else { 0.0 };
    table.row(world, &format!("{SYBILS} Sybils of {networks} networks"), &found, bound).await;
    Ok(())
}

/// One holder of a key among many who say that they are.
async fn pretended(args: &Args, world: &mut World, table: &mut Table) -> Result<(), String> {
    let mut found = world.impostors(args.impostors, IMPOSTORS_NETWORKS, args.look_ups.min(100)).await?;
    let dials = found.iter().map(|one| one.dials).max().unwrap_or(0);
    println!("{:>6}  at most {dials} dials among {} impostors", world.nodes.len(), args.impostors);
    for one in &mut found {
        let is_late = one.after.is_some_and(|after| after > impostors::WITHIN);
        if is_late || one.dials > impostors::DIALS {
            one.after = None;
        }
    }
    let bound = if args.undefended { 0.0 } else { 100.0 };
    table.row(world, &format!("1 among {} impostors", args.impostors), &found, bound).await;
    Ok(())
}

/// Liars come in, of few networks, and more nodes after them.
async fn flooded(args: &Args, world: &mut World, networks: usize, table: &mut Table) -> Result<(), String> {
    let size = world.nodes.len();
    let liars = world.flood(size.div_ceil(2), networks)?;
    world.grow(size + size.div_ceil(5)).await?;
    world.announce(each(world.nodes.len())).await;
    let found = world.look_up(args.look_ups).await;
    let (all, new) = (world.infested(0, &liars).await, world.infested(size, &liars).await);
    println!("{size:>6}  of what is in routing tables {all:.1} % lies, in those of new nodes {new:.1} %");
    table.row(world, &format!("{} liars of {networks} networks", liars.len()), &found, 0.0).await;
    Ok(())
}

/// One node in ten lies.
async fn lied_to(args: &Args, world: &mut World, table: &mut Table) -> Result<(), String> {
    world.corrupt(world.nodes.len().div_ceil(10))?;
    let found = world.look_up(args.look_ups).await;
    table.row(world, "one more in ten lies", &found, 99.0).await;
    let size = world.nodes.len();
    world.grow(size + size.div_ceil(5)).await?;
    world.announce(each(world.nodes.len())).await;
    let found = world.look_up(args.look_ups).await;
    table.row(world, "announced among liars", &found, 99.0).await;
    Ok(())
}

//! The corpora, replayed: what fuzzing found worth keeping, and every input that once broke something. What is said
//! between peers begins with what casd itself says.

use std::fs;
use std::path::Path;

use super::TARGETS;
use crate::{dht, golden, session};

/// A target, what an input of it is called, and the input.
pub(crate) type Seed = (&'static str, &'static str, Vec<u8>);

/// Replays the corpus of a target. That there is none is a failure.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        println!("{}", path.display());
        (target.check)(&input);
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}

/// Each message, as casd's own encoders write it, is in the corpus of its target; and it is still written so. With
/// `CASD_GOLDEN=new` what is not there is written first.
#[test]
fn what_casd_says_is_in_the_corpora() {
    let seeds: Vec<Seed> = [session::fuzzing::seeds::seeds(), dht::fuzzing::seeds::seeds()].concat();
    for (target, name, bytes) in &seeds {
        golden::is_at("fuzz/corpus", &format!("{target}/said_{name}"), bytes);
    }
    let has_some = |name: &str| seeds.iter().any(|(target, ..)| *target == name);
    let said = TARGETS.iter().skip_while(|target| target.name != "frame");
    assert!(said.clone().count() > 0 && said.clone().all(|target| has_some(target.name)));
}

/// A test for each target, so that one without a corpus is missed.
macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! {
    header segment journal format top page parity_part parity_page tree link metadata
    frame hello asks answers dht_hello announce find servers describe catalogue
}

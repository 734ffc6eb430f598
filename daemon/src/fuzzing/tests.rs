//! The corpora, replayed: what fuzzing found worth keeping, and every input that once broke something.

use std::fs;
use std::path::Path;

use super::TARGETS;

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

targets! { header segment journal format top page parity_part parity_page tree link metadata }

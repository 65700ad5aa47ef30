//! Every sample that fuzzing has found worth keeping, and every seed, fed to its target once more.

use vmoon_fuzz::{TARGETS, corpus};

#[test]
fn samples_are_read_or_refused() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()), "{}", target.name);
        let file = corpus::file(target.name);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let samples = corpus::parse(&text).unwrap_or_else(|line| panic!("{}:{line} is no sample", file.display()));
        assert!(samples.len() >= 5, "{}", target.name);
        for sample in seeds.iter().chain(&samples) {
            (target.run)(sample);
        }
    }
}

#[test]
fn samples_of_any_bytes_survive_as_text() {
    let all: Vec<u8> = (0..=255).collect();
    let mut samples = vec![all, b"\"\\x\n".to_vec(), Vec::new()];
    let mut back = corpus::parse(&corpus::format(&samples)).unwrap();
    back.sort();
    samples.sort();
    assert_eq!(back, samples);
    assert_eq!(corpus::parse("\"a\"\n\"\\q\"\n"), Err(2));
}

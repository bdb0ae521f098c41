//! Inputs for one parser, by the hundred thousand: the files of `tests/corpus/<name>/`, bent again and again. What the
//! parser accepts is bent further, so that the storm comes to places where no file of the corpus is. Each turn (see
//! [`crate::support::turn`]) has other inputs, and the same ones whenever it is run.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Instant,
};

use crate::support::{all, names, repository, turn};

/// With `tests/run.sh all` there are ten times as many.
const INPUTS: usize = 100_000;
/// On as many threads in every run, so that it does not depend on the host which inputs come.
const THREADS: usize = 4;
/// How many accepted inputs are kept to be bent further.
const MOST_FOUND: usize = 256;
/// Longer ones are cut: parsers show what they are in the first kilobytes.
const LONGEST: usize = 4096;

/// What is put in at random places, whatever the parser: what numbers, quotes, lines and terminals break at.
const TOKENS: [&[u8]; 40] = [
    b"",
    b" ",
    b"\n",
    b"\r\n",
    b"\t",
    b"\0",
    b"\\",
    b"\"",
    b"'",
    b"`",
    b",",
    b":",
    b": ",
    b"=",
    b"#",
    b"%",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"---\n",
    b"- ",
    b"[",
    b"]",
    b"{",
    b"}",
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e400",
    b"NaN",
    b"255",
    b"65536",
    b"18446744073709551615",
    b"99999999999999999999",
    b"../",
    b"\x1b[31m",
    "\u{feff}\u{202e}\u{85}".as_bytes(),
    "é日".as_bytes(),
    b"\xff\xfe",
];

/// The inputs of one parser.
pub(super) struct Storm {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
}

impl Storm {
    /// From the corpus of that name.
    pub(super) fn of(name: &'static str) -> Self {
        let directory = repository("tests/corpus").join(name);
        let read = |file: &String| fs::read(directory.join(file)).expect("readable");
        let seeds = names(&directory).iter().map(read).collect();
        Self { name, seeds }
    }

    /// For another parser than the one that the corpus is named after.
    pub(super) fn called(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// With one more to begin from.
    pub(super) fn and(mut self, seed: impl Into<Vec<u8>>) -> Self {
        self.seeds.push(seed.into());
        self
    }

    /// Lets it loose on a parser, which tells whether it accepted the input and panics when it did wrong.
    #[track_caller]
    pub(super) fn on(&self, parser: impl Fn(&[u8]) -> bool + Sync) {
        assert!(!self.seeds.is_empty(), "{} has a corpus", self.name);
        for seed in &self.seeds {
            assert!(parser(seed), "{}: {:?}", self.name, shown(seed));
        }
        let began = Instant::now();
        let accepted: usize = thread::scope(|scope| {
            let parser = &parser;
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || self.blow(thread, parser)))
                .collect();
            let counts = threads.into_iter().map(thread::ScopedJoinHandle::join);
            counts
                .map(|count| count.unwrap_or_else(|panic| resume_unwind(panic)))
                .sum()
        });
        print_result(self.name, accepted, began.elapsed().as_secs_f64());
        assert!(accepted > 0, "{}: the storm comes nowhere", self.name);
    }

    /// One thread's share; how many inputs were accepted.
    fn blow(&self, thread: usize, parser: impl Fn(&[u8]) -> bool) -> usize {
        let mut chance = Chance((turn() * THREADS + thread) as u64);
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut accepted = 0;
        for _ in 0..inputs() / THREADS {
            let pool = [&self.seeds[..], &found[..]];
            let mut input = chance.one_of(pool).clone();
            for _ in 0..=chance.below(4) {
                chance.bend(&mut input, pool);
            }
            let parsed = catch_unwind(AssertUnwindSafe(|| parser(&input)));
            match parsed {
                Ok(false) => {}
                Ok(true) => {
                    accepted += 1;
                    if found.len() < MOST_FOUND {
                        found.push(input);
                    } else {
                        found[chance.below(MOST_FOUND)] = input;
                    }
                }
                Err(panic) => {
                    super::say(&format!("{}: the input was {}", self.name, shown(&input)));
                    resume_unwind(panic);
                }
            }
        }
        accepted
    }
}

fn inputs() -> usize {
    if all() { INPUTS * 10 } else { INPUTS }
}

fn print_result(name: &str, accepted: usize, seconds: f64) {
    super::say(&format!(
        "  {name:<16} {} inputs of turn {}, {accepted} accepted, {seconds:.1} s",
        inputs(),
        turn()
    ));
}

fn shown(input: &[u8]) -> String {
    format!("b\"{}\"", input.escape_ascii())
}

/// Numbers that look random and are the same each time (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }

    fn one_of<'a>(&mut self, pool: [&'a [Vec<u8>]; 2]) -> &'a Vec<u8> {
        let [seeds, found] = pool;
        let side = if found.is_empty() || self.below(2) == 0 {
            seeds
        } else {
            found
        };
        &side[self.below(side.len())]
    }

    /// Changes one thing.
    fn bend(&mut self, bytes: &mut Vec<u8>, pool: [&[Vec<u8>]; 2]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(64) + 1);
        match self.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            5 | 6 => {
                let token = TOKENS[self.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
            7 => {
                // A whole word or number in place of another.
                let word = bytes[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_alphanumeric());
                let word = at..at + word.count();
                let token = TOKENS[self.below(TOKENS.len())];
                bytes.splice(word, token.iter().copied());
            }
            _ => {
                let other = self.one_of(pool);
                let from = self.below(other.len() + 1);
                let upto = from + self.below(other.len() - from + 1);
                bytes.splice(at..end, other[from..upto].iter().copied());
            }
        }
        bytes.truncate(LONGEST);
    }
}

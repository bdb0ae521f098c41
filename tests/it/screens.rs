//! What a terminal of 80 columns shows, by a real one (tmux): its screens are kept beside this file, without figures.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use regex::Regex;

use crate::{
    faults::server::{Server, ServerFault},
    support::{VERSION, guest_image, make_release},
    transcript::{Story, chapter},
};

/// A shell on a terminal; it ends with this.
pub(crate) struct Screen<'a> {
    story: &'a Story,
    tmux: String,
}

/// Nothing that is shown here waits for a guest.
const SOON: Duration = Duration::from_secs(180);

impl<'a> Screen<'a> {
    /// In the story's project, with `variables` like `NO_COLOR=1` besides.
    pub(crate) fn of(story: &'a Story, variables: &str) -> Self {
        // The one before it may still be about to end.
        static SOCKETS: AtomicUsize = AtomicUsize::new(0);
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let socket = story.env.path(&format!("tmux-{number}"));
        let tmux = format!("tmux -f /dev/null -S {}", socket.display());
        story
            .run(&format!(
                "{tmux} new-session -d -x 80 -y 24 'exec env PS1=:: TERM=tmux-256color {variables} bash --norc --noprofile'"
            ))
            .succeeds();
        let screen = Self { story, tmux };
        screen.shows("::");
        screen
    }

    /// Types a line, with its end.
    pub(crate) fn types(&self, line: &str) {
        let line = format!("{} send-keys -l '{line}'", self.tmux);
        self.story.run(&line).succeeds();
        self.presses("Enter");
    }

    /// Presses a key, as tmux calls it.
    pub(crate) fn presses(&self, key: &str) {
        let line = format!("{} send-keys {key}", self.tmux);
        self.story.run(&line).succeeds();
    }

    /// The lines as they are once one of them has `text` in it.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) -> String {
        self.comes("", text)
    }

    /// The same with the sequences that give it colour.
    #[track_caller]
    fn shows_in_colour(&self, text: &str) -> String {
        self.comes("-e", text).replace('\x1b', "␛")
    }

    #[track_caller]
    fn comes(&self, options: &str, text: &str) -> String {
        let began = Instant::now();
        loop {
            let mut shell = self.story.env.tool("bash");
            shell.args(["-c", &format!("{} capture-pane -p {options}", self.tmux)]);
            let seen = shell.output().expect("tmux runs").stdout;
            let seen = String::from_utf8_lossy(&seen).trim_end().to_owned();
            if seen.contains(text) {
                return seen;
            }
            assert!(began.elapsed() < SOON, "{text:?} never comes:\n{seen}");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.story.run(&format!("{} kill-server", self.tmux));
    }
}

/// Without what is another one each time, as wide as it is.
pub(crate) fn masked(screen: &str) -> String {
    let mut masked = screen.to_owned();
    for (pattern, mask) in [
        (
            r"/tmp/(k3s-vm-tests\.[A-Za-z0-9]+/)?k3s-vm-it-[0-9A-Za-z]+",
            "/TMP",
        ),
        (r"127\.0\.0\.1:[0-9]+", "127.0.0.1:PORT"),
        (r"k3s-([0-9A-Za-z]+)-[0-9a-f]{6}", "k3s-$1-xxxxxx"),
        (r" *[0-9]+\.[0-9]+s  ", "   T.Ts  "),
        (r"[⠁⠂⠄⡀⢀⠠⠐⠈⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] ", "◐ "),
        (r"[0-9]+(\.[0-9]+)? [kKM]i?B/s|[0-9]+ B/s", "RATE"),
        (r"RATE +[0-9]+[smhd]", "RATE   ETA"),
    ] {
        let pattern = Regex::new(pattern).expect("a sound pattern");
        masked = pattern.replace_all(&masked, mask).into_owned();
    }
    masked
}

#[test]
fn a_transfer_on_a_terminal() {
    let story = Story::begin("screens");
    let root = story.env.path("mirror");
    make_release(&root.join(VERSION), VERSION);
    let server = Server::of(&root, ServerFault::Hold);
    let setup = format!(
        "k3s-vm setup --image {} --k3s-version {VERSION} --k3s-mirror {} --accel tcg",
        guest_image().display(),
        server.url
    );

    chapter("As a bar, with its rate and the time that is left");
    let screen = Screen::of(&story, "");
    screen.types(&format!("clear; {setup}"));
    let seen = screen.shows("█");
    let bars: Vec<_> = seen.lines().filter(|line| line.contains("/s ")).collect();
    assert!(!bars.is_empty(), "{seen}");
    for what in [" debian-", " k3s "] {
        // Behind the one sign that turns.
        let begins = |bar: &&&str| {
            bar.trim_start_matches(|it: char| it != ' ')
                .starts_with(what)
        };
        let these = bars.iter().filter(begins).count();
        assert!(
            these <= 1,
            "nothing of a bar is left behind where it goes on:\n{seen}"
        );
    }
    screen.presses("C-c");
    screen.shows("stopped\n::");
    drop(screen);

    chapter("As lines, where nothing can move");
    let screen = Screen::of(&story, "TERM=dumb");
    screen.types(&format!("clear; {setup}"));
    let seen = screen.shows("fetching");
    assert!(!seen.contains('█'), "{seen}");
    screen.presses("C-c");
    screen.shows("interrupted");
}

#[test]
fn colors_and_the_alternate_screen() {
    let story = Story::begin("colours");
    for (name, variables) in [("in-colour", ""), ("without-colour", "NO_COLOR=1")] {
        let screen = Screen::of(&story, variables);
        screen.types("clear; k3s-vm start");
        insta::assert_snapshot!(name, masked(&screen.shows_in_colour("k3s-vm setup\n::")));
    }
    let screen = Screen::of(&story, "");
    screen.types("clear; echo before; k3s-vm status --watch");
    let seen = screen.shows("none in");
    assert!(
        !seen.contains("before"),
        "it has a screen of its own:\n{seen}"
    );
    insta::assert_snapshot!("watched", masked(&seen));
    screen.presses("C-c");
    let seen = screen.shows("colours\n::");
    insta::assert_snapshot!("watched-no-more", masked(&seen));
}

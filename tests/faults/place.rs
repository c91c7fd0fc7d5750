//! A state folder, a fake Docker with an old world and a new one, a script that plays HAProxy, and what must stand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cosmonaut::{config, lock};

use crate::support::deadline::poll;
use crate::support::fake_docker::{Container, FakeDocker};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// The program under test: the one that scripts/faults names, else the one that cargo built with this.
pub fn binary() -> PathBuf {
    std::env::var_os("COSMONAUT_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_cosmonaut").into(), PathBuf::from)
}

/// What stood after something went wrong, and the next pass.
#[derive(Default)]
pub struct Stood {
    /// HAProxy runs a whole config: the old or the new one.
    pub serving: bool,
    /// So is the file.
    pub file: bool,
    /// Nobody holds the lock of a pass.
    pub lock: bool,
    /// The next pass, with nothing in its way, brings both to the new config.
    pub next: bool,
    /// What is not so, in words.
    pub damage: Vec<String>,
}

/// How often each of these was so.
#[derive(Default)]
pub struct Standing([usize; 4]);

impl Standing {
    /// The heads of its columns.
    pub const COLUMNS: &str =
        "HAProxy serves a whole config | file whole | lock free | next pass right";
    pub const RULE: &str = "---|---|---|---";

    pub fn count(&mut self, stood: &Stood) {
        for (count, is) in
            self.0
                .iter_mut()
                .zip([stood.serving, stood.file, stood.lock, stood.next])
        {
            *count += usize::from(is);
        }
    }

    pub fn cells(&self) -> String {
        self.0.map(|count| count.to_string()).join(" | ")
    }
}

/// Whether a config is one that this program wrote, to its last byte.
pub fn is_whole(text: &str) -> bool {
    let (body, print) = config::split_fingerprint(text);
    print == Some(config::fingerprint(body).as_str())
}

pub struct Place {
    pub root: PathBuf,
    pub docker: FakeDocker,
    /// Config of the old world and of the new one.
    pub old: String,
    pub new: String,
}

impl Place {
    /// HAProxy runs the old world's config; Docker is in the new one.
    pub fn new(name: &str) -> Place {
        Place::among(name, 0)
    }

    /// The same with so many services more, which stay as they are: a longer config.
    pub fn among(name: &str, others: usize) -> Place {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("csm-f-{}-{number}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("state")).expect("a folder");
        let docker = FakeDocker::unix(&root.join("d.sock"));
        let mut place = Place {
            docker,
            old: String::new(),
            new: String::new(),
            root,
        };
        // `live` is what HAProxy runs. It takes nothing that is not a whole config, as HAProxy does not.
        let live = place.live_path();
        let text = format!(
            "#!/bin/sh\ntail -n 1 \"$2\" | grep -q '^    description cosmonaut:' || {{ echo refused >&2; exit 1; }}\n\
             [ \"$1\" = check ] || {{ cp \"$2\" '{0}.new' && mv '{0}.new' '{0}'; }}\n",
            live.display()
        );
        fs::write(place.script(), text).expect("the script");
        fs::set_permissions(place.script(), fs::Permissions::from_mode(0o755)).expect("its mode");
        for (at, service) in [(2, "web"), (3, "web"), (4, "api")] {
            place.docker.add(container(at, service));
        }
        for number in 0..others {
            let at = 100 + number;
            place.docker.add(container(at, &format!("other{number}")));
        }
        place.must_sync();
        place.old = place.config();
        place.keep();
        place.docker.remove(&container(3, "web").name);
        place.docker.add(container(5, "api"));
        place.must_sync();
        place.new = place.config();
        assert_ne!(place.old, place.new);
        place.reset();
        place
    }

    pub fn script(&self) -> PathBuf {
        self.root.join("script.sh")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    fn live_path(&self) -> PathBuf {
        self.root.join("live")
    }

    pub fn config(&self) -> String {
        fs::read_to_string(self.state().join("haproxy.cfg")).unwrap_or_default()
    }

    /// What HAProxy runs.
    pub fn live(&self) -> String {
        fs::read_to_string(self.live_path()).unwrap_or_default()
    }

    fn kept(&self) -> PathBuf {
        self.root.join("kept")
    }

    fn keep(&self) {
        let _ = fs::remove_dir_all(self.kept());
        copy(&self.state(), &self.kept());
    }

    /// Back to the old world's state folder and HAProxy.
    pub fn reset(&self) {
        let _ = fs::remove_dir_all(self.state());
        copy(&self.kept(), &self.state());
        fs::write(self.live_path(), &self.old).expect("written");
    }

    /// The same into a folder that is there and empty.
    pub fn refill(&self) {
        copy(&self.kept(), &self.state());
        fs::write(self.live_path(), &self.old).expect("written");
    }

    pub fn options(&self) -> Vec<String> {
        [
            "--docker-host",
            &self.docker.docker_host(),
            "--state-dir",
            &self.state().display().to_string(),
            "--script",
            &self.script().display().to_string(),
            "--weave",
            "never",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// A program with a clean environment; what it says is kept.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.root)
            .env("LC_ALL", "C")
            .current_dir(&self.root)
            .stdin(Stdio::null());
        command
    }

    pub fn sync(&self) -> Output {
        self.command(&binary())
            .arg("sync")
            .args(self.options())
            .output()
            .expect("the program can be started")
    }

    pub fn must_sync(&self) {
        let output = self.sync();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Whether the lock of a pass can be had, now or soon: a watch may be in the middle of a pass.
    pub fn lock_is_free(&self) -> bool {
        poll(Duration::from_secs(5), || {
            let file = fs::File::open(self.state().join(lock::PASS)).ok()?;
            file.try_lock().ok()
        })
        .is_some()
    }

    /// What stands after something went wrong; the next pass is made and looked at, too.
    pub fn stood(&self) -> Stood {
        let mut damage = Vec::new();
        let mut whole = |what: &str, text: &str| {
            let is = text == self.old || text == self.new;
            if !is {
                damage.push(format!(
                    "{what} is neither the old config nor the new one: {text:?}"
                ));
            }
            is
        };
        let file = whole("the file", &self.config());
        let serving = whole("what HAProxy runs", &self.live());
        // Where the pass did not come so far there is no file to lock.
        let lock = !self.state().join(lock::PASS).exists() || self.lock_is_free();
        if !lock {
            damage.push("somebody holds the lock of a pass".to_owned());
        }
        let next = self.sync();
        if !next.status.success() {
            damage.push(format!(
                "the next pass fails ({}): {}",
                next.status,
                String::from_utf8_lossy(&next.stderr).trim()
            ));
        }
        let is_new = self.config() == self.new && self.live() == self.new;
        if !is_new {
            damage.push("after the next pass HAProxy or the file is not right".to_owned());
        }
        Stood {
            serving,
            file,
            lock,
            next: next.status.success() && is_new,
            damage,
        }
    }

    /// Staged files that nobody needs any more.
    pub fn leftovers(&self) -> Vec<String> {
        fs::read_dir(self.state())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".tmp"))
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub fn container(at: usize, service: &str) -> Container {
    Container::serving(
        &format!("asteroid-{at}"),
        &format!("10.2.0.{at}"),
        service,
        &format!("{service}.example"),
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

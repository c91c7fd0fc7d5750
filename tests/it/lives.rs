//! Random lives on one host, followed by what was touched: what HAProxy has in the end is what a look at everything
//! comes to. The programs of these tests compare the two in each pass besides.

use std::time::Duration;

use crate::support::deadline::{SOON, wait_for};
use crate::support::dice::Dice;
use crate::support::fake_docker::Container;
use crate::support::sandbox::Sandbox;

/// A container of one of twelve services, most with what its service usually has.
fn some(dice: &mut Dice, n: usize) -> Container {
    let service = dice.roll(12);
    let (name, ip) = (format!("s{service:02}"), format!("10.5.0.{}", n + 2));
    let predicate = match dice.roll(20) {
        0 => format!("*.{name}.example"),
        1 => format!("{name}.example too.{name}.example"),
        2 => "claimed.example".to_owned(),
        _ => format!("{name}.example"),
    };
    let one = Container::serving(&format!("asteroid-{n}"), &ip, &name, &predicate)
        .with_created(1_794_000_000 + dice.roll(1_000_000) as u64);
    match dice.roll(20) {
        0 => one.with_env("PORT", "81"),
        1 => one.with_env("COOKIE", "C"),
        2 => one
            .with_env("CONFIG_MODE", "path")
            .with_env("PREDICATE", &format!("p{service}")),
        3 => one.with_health("starting"),
        4 => one.with_env("PORT", "nonsense"),
        5 => one.with_network("second", "10.6.0.9"),
        _ => one,
    }
}

fn life(seed: u64) {
    const OPTIONS: &[&str] = &["-v", "--settle", "1ms", "--settle-max", "5ms"];
    let sandbox = Sandbox::new(&format!("lives-{seed}"));
    let (docker, mut dice) = (&sandbox.docker, Dice::new(seed));
    let mut names: Vec<String> = Vec::new();
    for n in 0..20 {
        let one = some(&mut dice, n);
        names.push(one.name.clone());
        docker.add(one);
    }
    let mut watch = sandbox.settled_watch(OPTIONS);
    for step in 0..80 {
        let (at, what) = (dice.roll(names.len()), dice.roll(14));
        let name = names[at].clone();
        if [0, 1, 2, 6].contains(&what) {
            names.swap_remove(at);
        }
        match what {
            0 => docker.crash(&name),
            1 => docker.stop(&name),
            2 => docker.remove(&name),
            3 => docker.pause(&name),
            4 => docker.unpause(&name),
            5 => docker.health(&name, ["healthy", "unhealthy"][dice.roll(2)]),
            6 => docker.rename(&name, &name.replace("asteroid", "other")),
            7 => docker.connect(&name, "second", &format!("10.6.0.{}", at + 10)),
            8 => docker.disconnect(&name, "second"),
            9 if step % 4 == 0 => {
                watch.kill();
                watch = sandbox.watch(OPTIONS);
            }
            10 if step % 4 == 0 => {
                let foreign = sandbox.config().replace("maxconn 2000", "maxconn 2001");
                std::fs::write(sandbox.config_path(), foreign).expect("the file is there");
            }
            _ => {
                let one = some(&mut dice, 20 + step);
                names.push(one.name.clone());
                docker.run(one);
            }
        }
        std::thread::sleep(Duration::from_millis(dice.roll(50) as u64));
    }
    watch.signal("HUP");
    wait_for("what a look at everything comes to", SOON, || {
        let same = sandbox.run("plan", &[]).code() == Some(0);
        let live = sandbox.script.of("reload").pop();
        (same && live.is_some_and(|last| last.config == sandbox.config())).then_some(())
    });
    watch.still_runs();
    watch.stop();
}

#[test]
fn whatever_happens_is_followed() {
    (1..=3).for_each(life);
}

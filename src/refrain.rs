//! One trouble, said once: a pass that fails for the same reason again is no news. Pure.

use std::time::{Duration, Instant};

/// A trouble that lasts is said again after this time, so that the end of a log still tells of it.
const SAID_AGAIN: Duration = Duration::from_secs(15 * 60);

/// The trouble that was said last and has not ended.
#[derive(Debug, Default)]
pub struct Refrain(Option<(String, Instant)>);

impl Refrain {
    /// Whether these words are news. Numbers in them are not compared: process ids and times differ each
    /// time.
    pub fn is_news(&mut self, words: &str, now: Instant) -> bool {
        let words: String = words.chars().filter(|c| !c.is_ascii_digit()).collect();
        if let Some((said, at)) = &self.0
            && *said == words
            && now < *at + SAID_AGAIN
        {
            return false;
        }
        self.0 = Some((words, now));
        true
    }

    /// It is over.
    pub fn over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_said_once_for_a_while() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut refrain = Refrain::default();
        assert!(refrain.is_news("refused by pid 7", start));
        assert!(!refrain.is_news("refused by pid 81", later(1)));
        assert!(refrain.is_news("not running", later(2)));
        assert!(refrain.is_news("refused by pid 9", later(3)));
        assert!(!refrain.is_news("refused by pid 9", later(899)));
        assert!(refrain.is_news("refused by pid 9", later(904)));
        refrain.over();
        assert!(refrain.is_news("refused by pid 9", later(905)));
    }
}

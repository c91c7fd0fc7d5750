//! Random numbers for tests, by xorshift: the same seed, the same numbers, on every machine.

pub struct Dice(u64);

impl Dice {
    /// A seed of 0 counts as 1: xorshift never leaves 0.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.max(1))
    }

    /// Any number but 0.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// An index into `sides` things, of which there is one at least.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.below(sides as u64) as usize
    }
}

//! MinAtar's Breakout: break bricks with a ball, and keep it from falling past the paddle.

use super::{Draws, Game, Key, LAST, Outcome, SIDE, Screen};

// Channels.
const PADDLE: usize = 0;
const BALL: usize = 1;
const TRAIL: usize = 2;
const BRICK: usize = 3;

/// Every cell of a row.
const FULL_ROW: u16 = (1 << SIDE) - 1;
/// Rows that a wall fills.
const WALL: std::ops::Range<usize> = 1..4;

/// The ball moves diagonally, a cell a step, and leaves a trail where it was. A brick is worth 1; a new wall stands once the
/// last one is gone and the ball has come down. The paddle sends the ball back up: mirrored if the ball comes down
/// on it straight from above, the way it came if it hits its edge. The game is over when the ball gets past it.
#[derive(Debug, Clone, Default)]
pub struct Breakout {
    paddle: i32,
    ball: [i32; 2],
    /// Where the ball was before.
    trail: [i32; 2],
    /// Where the ball goes, along x and y: 1 or -1.
    heading: [i32; 2],
    /// Bit x of `bricks[y]` is the brick in column x and row y.
    bricks: [u16; SIDE],
    /// The ball broke a brick in the step before: it goes through the next one without breaking it.
    struck: bool,
}

impl Breakout {
    fn build_wall(&mut self) {
        self.bricks = [0; SIDE];
        self.bricks[WALL].fill(FULL_ROW);
    }
}

impl Game for Breakout {
    const NAME: &'static str = "Breakout";
    const CHANNELS: usize = 4;
    const KEYS: &'static [Key] = &[Key::Idle, Key::Left, Key::Right];

    fn start(&mut self, draws: &mut impl Draws) {
        let (x, dx) = if draws.below(2) == 0 { (0, 1) } else { (LAST, -1) };
        *self = Self { paddle: 4, ball: [x, 3], trail: [x, 3], heading: [dx, 1], ..Self::default() };
        self.build_wall();
    }

    #[inline]
    fn play(&mut self, key: Key, _ramping: bool, _draws: &mut impl Draws) -> Outcome {
        match key {
            Key::Left => self.paddle = (self.paddle - 1).max(0),
            Key::Right => self.paddle = (self.paddle + 1).min(LAST),
            _ => {}
        }
        let mut outcome = Outcome::default();
        self.trail = self.ball;
        let [old_x, old_y] = self.ball;
        let [mut x, mut y] = [old_x + self.heading[0], old_y + self.heading[1]];
        if !(0..=LAST).contains(&x) {
            x = x.clamp(0, LAST);
            self.heading[0] = -self.heading[0];
        }
        let mut in_brick = false;
        if y < 0 {
            y = 0;
            self.heading[1] = -self.heading[1];
        } else if self.bricks[y as usize] & 1 << x != 0 {
            in_brick = true;
            if !self.struck {
                self.struck = true;
                outcome.reward = 1;
                self.bricks[y as usize] &= !(1 << x);
                y = old_y;
                self.heading[1] = -self.heading[1];
            }
        } else if y == LAST {
            if self.bricks == [0; SIDE] {
                self.build_wall();
            }
            if old_x == self.paddle {
                self.heading[1] = -self.heading[1];
                y = old_y;
            } else if x == self.paddle {
                self.heading = self.heading.map(|way| -way);
                y = old_y;
            } else {
                outcome.over = true;
            }
        }
        if !in_brick {
            self.struck = false;
        }
        self.ball = [x, y];
        outcome
    }

    #[inline]
    fn show(&self, screen: &mut Screen<'_>) {
        screen.put(self.paddle, LAST, PADDLE);
        screen.put(self.ball[0], self.ball[1], BALL);
        screen.put(self.trail[0], self.trail[1], TRAIL);
        screen.put_rows(&self.bricks, BRICK);
    }
}

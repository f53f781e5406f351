//! MinAtar's Asterix: collect gold and keep away from enemies, which all come from the sides.

use super::{Draws, Game, Key, LAST, Outcome, Screen};

// Channels.
const PLAYER: usize = 0;
const ENEMY: usize = 1;
const TRAIL: usize = 2;
const GOLD: usize = 3;

/// Rows in which things move, each at most one at a time: 1 to 8.
const LANES: usize = 8;
/// Steps between two things that appear, at first.
const SPAWN_INTERVAL: i32 = 10;
/// Steps between two moves of things, at first.
const MOVE_INTERVAL: i32 = 5;
/// Steps between two rises of difficulty, less two.
const RAMP_INTERVAL: i32 = 100;

/// A thing in its lane.
#[derive(Debug, Clone, Copy)]
struct Thing {
    x: i32,
    /// It moves right, or else left.
    right: bool,
    /// It is gold, or else an enemy.
    gold: bool,
}

/// The player moves freely in rows 1 to 8. Things cross the screen, a third of them gold, worth 1; an enemy ends the
/// game. With ramping they come and move ever faster.
#[derive(Debug, Clone, Default)]
pub struct Asterix {
    player: [i32; 2],
    /// `things[i]` is in row i + 1.
    things: [Option<Thing>; LANES],
    /// Steps between two things that appear, and until the next one does.
    spawn_interval: i32,
    spawn_timer: i32,
    /// Steps between two moves, and until the next one.
    move_interval: i32,
    move_timer: i32,
    /// Steps until the difficulty rises, and how often it did.
    ramp_timer: i32,
    ramps: u32,
}

impl Asterix {
    /// A thing appears at either side of a free lane, if there is one.
    fn spawn(&mut self, draws: &mut impl Draws) {
        let right = draws.chance(1.0 / 2.0);
        let gold = draws.chance(1.0 / 3.0);
        let free = self.things.iter().filter(|thing| thing.is_none()).count();
        if free > 0 {
            let chosen = draws.below(free as u32) as usize;
            let lane = self.things.iter_mut().filter(|thing| thing.is_none()).nth(chosen);
            *lane.expect("the number drawn is below that of free lanes") =
                Some(Thing { x: if right { 0 } else { LAST }, right, gold });
        }
    }

    /// What the player gets for sharing its cell with a thing.
    fn touch(&mut self, lane: usize, outcome: &mut Outcome) {
        let Some(thing) = self.things[lane] else { return };
        if self.player != [thing.x, lane as i32 + 1] {
            return;
        }
        if thing.gold {
            self.things[lane] = None;
            outcome.reward += 1;
        } else {
            outcome.over = true;
        }
    }

    fn move_things(&mut self, outcome: &mut Outcome) {
        for lane in 0..LANES {
            let Some(thing) = &mut self.things[lane] else { continue };
            thing.x += if thing.right { 1 } else { -1 };
            if (0..=LAST).contains(&thing.x) {
                self.touch(lane, outcome);
            } else {
                self.things[lane] = None;
            }
        }
    }

    /// Every so many steps things come faster, and every other time they move faster, too.
    fn ramp(&mut self) {
        if self.spawn_interval <= 1 && self.move_interval <= 1 {
            return;
        }
        if self.ramp_timer >= 0 {
            self.ramp_timer -= 1;
            return;
        }
        if self.move_interval > 1 && self.ramps % 2 == 1 {
            self.move_interval -= 1;
        }
        if self.spawn_interval > 1 {
            self.spawn_interval -= 1;
        }
        self.ramps += 1;
        self.ramp_timer = RAMP_INTERVAL;
    }
}

impl Game for Asterix {
    const NAME: &'static str = "Asterix";
    const CHANNELS: usize = 4;
    const KEYS: &'static [Key] = &[Key::Idle, Key::Left, Key::Up, Key::Right, Key::Down];

    fn start(&mut self, _draws: &mut impl Draws) {
        *self = Self {
            player: [5, 5],
            things: [None; LANES],
            spawn_interval: SPAWN_INTERVAL,
            spawn_timer: SPAWN_INTERVAL,
            move_interval: MOVE_INTERVAL,
            move_timer: MOVE_INTERVAL,
            ramp_timer: RAMP_INTERVAL,
            ramps: 0,
        };
    }

    #[inline]
    fn play(&mut self, key: Key, ramping: bool, draws: &mut impl Draws) -> Outcome {
        if self.spawn_timer == 0 {
            self.spawn(draws);
            self.spawn_timer = self.spawn_interval;
        }
        let [x, y] = &mut self.player;
        match key {
            Key::Left => *x = (*x - 1).max(0),
            Key::Right => *x = (*x + 1).min(LAST),
            Key::Up => *y = (*y - 1).max(1),
            Key::Down => *y = (*y + 1).min(LAST - 1),
            _ => {}
        }
        let mut outcome = Outcome::default();
        for lane in 0..LANES {
            self.touch(lane, &mut outcome);
        }
        if self.move_timer == 0 {
            self.move_timer = self.move_interval;
            self.move_things(&mut outcome);
        }
        self.spawn_timer -= 1;
        self.move_timer -= 1;
        if ramping {
            self.ramp();
        }
        outcome
    }

    #[inline]
    fn show(&self, screen: &mut Screen<'_>) {
        screen.put(self.player[0], self.player[1], PLAYER);
        for (lane, thing) in self.things.iter().enumerate() {
            let Some(thing) = thing else { continue };
            let y = lane as i32 + 1;
            screen.put(thing.x, y, if thing.gold { GOLD } else { ENEMY });
            screen.put(if thing.right { thing.x - 1 } else { thing.x + 1 }, y, TRAIL);
        }
    }
}

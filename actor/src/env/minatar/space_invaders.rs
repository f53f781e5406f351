//! MinAtar's Space Invaders: shoot the aliens before they land, and dodge what they shoot.

use super::{Draws, Game, Key, LAST, Outcome, SIDE, Screen};

// Channels.
const CANNON: usize = 0;
const ALIEN: usize = 1;
const ALIEN_LEFT: usize = 2;
const ALIEN_RIGHT: usize = 3;
const FRIENDLY_BULLET: usize = 4;
const ENEMY_BULLET: usize = 5;

/// Steps from one shot of the cannon to the next.
const SHOT_INTERVAL: u32 = 5;
/// Steps between two moves of a full wave of aliens: of the first wave, and of the fastest.
const MOVE_INTERVAL: u32 = 12;
const FASTEST: u32 = 6;
/// Steps from one shot of the aliens to the next.
const ENEMY_SHOT_INTERVAL: u32 = 10;
/// A wave: rows 0 to 3, columns 2 to 7.
const WAVE_ROWS: std::ops::Range<usize> = 0..4;
const WAVE_ROW: u16 = 0b00_1111_1100;

/// The cells in which there is a thing: bit x of row y.
type Cells = [u16; SIDE];

/// The cannon moves along the bottom row and shoots up, at most every fifth step. Aliens move sideways together, and at the edge
/// down and back; fewer of them move faster. The one nearest to the cannon's column shoots down every tenth step.
/// An alien shot is worth 1. After a wave comes the next, with ramping a faster one. The game is over when an alien
/// or a bullet hits the cannon, or aliens in the bottom row reach the edge.
#[derive(Debug, Clone, Default)]
pub struct SpaceInvaders {
    cannon: usize,
    bullets: Cells,
    enemy_bullets: Cells,
    aliens: Cells,
    /// Aliens move right, or else left.
    aliens_right: bool,
    /// Steps between two moves of a full wave, and until the next move.
    move_interval: u32,
    move_timer: u32,
    /// Steps until the cannon can shoot, and until the aliens do.
    shot_timer: u32,
    enemy_shot_timer: u32,
}

fn has(cells: &Cells, y: usize, x: usize) -> bool {
    cells[y] & 1 << x != 0
}

fn count(cells: &Cells) -> u32 {
    cells.iter().map(|row| row.count_ones()).sum()
}

/// The columns in which there is anything.
fn columns(cells: &Cells) -> u16 {
    cells.iter().fold(0, |all, row| all | row)
}

impl SpaceInvaders {
    fn send_wave(&mut self) {
        self.aliens[WAVE_ROWS].fill(WAVE_ROW);
    }

    /// Whether an alien has landed on the cannon.
    fn landed(&self) -> bool {
        has(&self.aliens, SIDE - 1, self.cannon)
    }

    /// Aliens move; whether that ends the game.
    fn move_aliens(&mut self) -> bool {
        let edge = if self.aliens_right { 1 << (SIDE - 1) } else { 1 };
        let mut over = false;
        if columns(&self.aliens) & edge != 0 {
            self.aliens_right = !self.aliens_right;
            over = self.aliens[SIDE - 1] != 0;
            // The bottom row comes out at the top, where a game that is over shows it.
            self.aliens.rotate_right(1);
        } else {
            let right = self.aliens_right;
            self.aliens = self.aliens.map(|row| if right { row << 1 } else { row >> 1 });
        }
        over || self.landed()
    }

    /// The lowest alien of the column nearest to the cannon shoots; of two columns equally near it is the left one.
    fn enemy_shoots(&mut self) {
        let occupied = columns(&self.aliens);
        let near = (0..SIDE).filter(|x| occupied & 1 << x != 0).min_by_key(|x| x.abs_diff(self.cannon));
        let Some(x) = near else { return };
        if let Some(y) = (0..SIDE).rfind(|&y| has(&self.aliens, y, x)) {
            self.enemy_bullets[y] |= 1 << x;
        }
    }

    /// Aliens and bullets that share a cell are gone; how many aliens that are.
    fn hits(&mut self) -> u32 {
        let mut hits = 0;
        for (aliens, bullets) in self.aliens.iter_mut().zip(&mut self.bullets) {
            let hit = *aliens & *bullets;
            *aliens &= !hit;
            *bullets &= !hit;
            hits += hit.count_ones();
        }
        hits
    }
}

impl Game for SpaceInvaders {
    const NAME: &'static str = "SpaceInvaders";
    const CHANNELS: usize = 6;
    const KEYS: &'static [Key] = &[Key::Idle, Key::Left, Key::Right, Key::Fire];

    fn start(&mut self, _draws: &mut impl Draws) {
        *self = Self {
            cannon: 5,
            move_interval: MOVE_INTERVAL,
            move_timer: MOVE_INTERVAL,
            enemy_shot_timer: ENEMY_SHOT_INTERVAL,
            ..Self::default()
        };
        self.send_wave();
    }

    #[inline]
    fn play(&mut self, key: Key, ramping: bool, _draws: &mut impl Draws) -> Outcome {
        let mut outcome = Outcome::default();
        match key {
            Key::Fire if self.shot_timer == 0 => {
                self.bullets[SIDE - 1] |= 1 << self.cannon;
                self.shot_timer = SHOT_INTERVAL;
            }
            Key::Left => self.cannon = self.cannon.saturating_sub(1),
            Key::Right => self.cannon = (self.cannon + 1).min(SIDE - 1),
            _ => {}
        }
        self.bullets.rotate_left(1);
        self.bullets[SIDE - 1] = 0;
        self.enemy_bullets.rotate_right(1);
        self.enemy_bullets[0] = 0;
        outcome.over = has(&self.enemy_bullets, SIDE - 1, self.cannon) || self.landed();
        if self.move_timer == 0 {
            self.move_timer = count(&self.aliens).min(self.move_interval);
            outcome.over |= self.move_aliens();
        }
        if self.enemy_shot_timer == 0 {
            self.enemy_shot_timer = ENEMY_SHOT_INTERVAL;
            self.enemy_shoots();
        }
        outcome.reward = self.hits();
        self.shot_timer = self.shot_timer.saturating_sub(1);
        self.move_timer -= 1;
        self.enemy_shot_timer -= 1;
        if count(&self.aliens) == 0 {
            if ramping && self.move_interval > FASTEST {
                self.move_interval -= 1;
            }
            self.send_wave();
        }
        outcome
    }

    #[inline]
    fn show(&self, screen: &mut Screen<'_>) {
        screen.put(self.cannon as i32, LAST, CANNON);
        screen.put_rows(&self.aliens, ALIEN);
        screen.put_rows(&self.aliens, if self.aliens_right { ALIEN_RIGHT } else { ALIEN_LEFT });
        screen.put_rows(&self.bullets, FRIENDLY_BULLET);
        screen.put_rows(&self.enemy_bullets, ENEMY_BULLET);
    }
}

//! MinAtar's Seaquest: shoot fish and submarines, pick up divers, and bring them up before the air runs out.

use super::{Draws, Game, Key, LAST, Outcome, Screen};

// Channels.
const SUB_FRONT: usize = 0;
const SUB_BACK: usize = 1;
const FRIENDLY_BULLET: usize = 2;
const TRAIL: usize = 3;
const ENEMY_BULLET: usize = 4;
const ENEMY_FISH: usize = 5;
const ENEMY_SUB: usize = 6;
const OXYGEN_GAUGE: usize = 7;
const DIVER_GAUGE: usize = 8;
const DIVER: usize = 9;

/// Steps under water on a full tank, and the cells of the gauge that shows it.
const OXYGEN: i32 = 200;
const GAUGE: i32 = 10;
/// Divers on board that make surfacing pay.
const CREW: i32 = 6;
/// Steps between two enemies that appear, at first, and between two divers.
const SPAWN_INTERVAL: u32 = 20;
const DIVER_SPAWN_INTERVAL: u32 = 30;
/// Steps that an enemy rests between two moves, at first and at its fastest, and that a diver rests.
const MOVE_INTERVAL: u32 = 5;
const FASTEST: u32 = 2;
const DIVER_MOVE_INTERVAL: u32 = 5;
/// Steps from one shot of the player to the next, and the steps that an enemy submarine rests between two shots.
const SHOT_INTERVAL: u32 = 5;
const ENEMY_SHOT_INTERVAL: u32 = 10;
/// Rows in which things appear: 1 to 8.
const LANES: u32 = 8;

/// Something that moves along its row.
#[derive(Debug, Clone, Copy)]
struct Swimmer {
    x: i32,
    y: i32,
    /// It moves right, or else left.
    right: bool,
    /// Steps until it moves.
    move_timer: u32,
}

impl Swimmer {
    fn is_at(&self, place: [i32; 2]) -> bool {
        [self.x, self.y] == place
    }

    fn advance(&mut self) {
        self.x += if self.right { 1 } else { -1 };
    }

    fn on_screen(&self) -> bool {
        (0..=LAST).contains(&self.x)
    }

    /// Moves if it is time to, which it then is again after `interval` rests; whether it did.
    fn swim(&mut self, interval: u32) -> bool {
        if self.move_timer > 0 {
            self.move_timer -= 1;
            return false;
        }
        self.move_timer = interval;
        self.advance();
        true
    }
}

/// A shot on its way, one cell a step.
type Bullet = Swimmer;

/// An enemy that shoots.
#[derive(Debug, Clone, Copy)]
struct EnemySub {
    hull: Swimmer,
    /// Steps until it shoots.
    shot_timer: u32,
}

/// The player's submarine moves in rows 0 (the surface) to 8 and shoots the way it faces, at most every fifth step. A fish or
/// submarine shot is worth 1; submarines shoot back. Divers are picked up, six at most. Under water oxygen runs out
/// within 200 steps; at the surface it is filled up at the price of a diver, and with six divers on board what was left of
/// it is paid, a point for each cell of the gauge. With ramping each surfacing makes enemies more frequent and
/// faster. The game is over when an enemy or its bullet hits the player, when the oxygen is used up, and when the player
/// surfaces without a diver.
///
/// As in the package, the price of a diver is due after six were paid for, too: the player then owes one, and the
/// debt lets it surface again.
#[derive(Debug, Clone, Default)]
pub struct Seaquest {
    sub: [i32; 2],
    /// The player faces right, or else left.
    facing_right: bool,
    oxygen: i32,
    /// Divers on board; below zero those owed.
    divers_on_board: i32,
    /// The player has been at the surface since it last came up.
    at_surface: bool,
    // Later ones were there later. They are gone through from the last to the first, and that matters.
    bullets: Vec<Bullet>,
    enemy_bullets: Vec<Bullet>,
    fish: Vec<Swimmer>,
    enemy_subs: Vec<EnemySub>,
    divers: Vec<Swimmer>,
    /// Steps between two enemies, and until the next.
    spawn_interval: u32,
    spawn_timer: u32,
    /// Steps until the next diver.
    diver_spawn_timer: u32,
    /// Steps that enemies rest between two moves.
    move_interval: u32,
    /// Steps until the player can shoot.
    shot_timer: u32,
    /// How often the difficulty rose.
    ramps: u32,
}

impl Seaquest {
    /// A fish or a submarine appears at either side, unless one that moves the other way is in its row.
    fn spawn_enemy(&mut self, draws: &mut impl Draws) {
        let right = draws.chance(1.0 / 2.0);
        let is_sub = draws.chance(1.0 / 3.0);
        let enemy = spawn(right, self.move_interval, draws);
        let hulls = self.enemy_subs.iter().map(|sub| &sub.hull);
        if hulls.chain(&self.fish).any(|other| other.y == enemy.y && other.right != right) {
            return;
        }
        if is_sub {
            self.enemy_subs.push(EnemySub { hull: enemy, shot_timer: ENEMY_SHOT_INTERVAL });
        } else {
            self.fish.push(enemy);
        }
    }

    fn spawn_diver(&mut self, draws: &mut impl Draws) {
        let right = draws.chance(1.0 / 2.0);
        self.divers.push(spawn(right, DIVER_MOVE_INTERVAL, draws));
    }

    fn press(&mut self, key: Key) {
        let [x, y] = &mut self.sub;
        match key {
            Key::Fire if self.shot_timer == 0 => {
                self.bullets.push(Bullet { x: *x, y: *y, right: self.facing_right, move_timer: 0 });
                self.shot_timer = SHOT_INTERVAL;
            }
            Key::Left => (*x, self.facing_right) = ((*x - 1).max(0), false),
            Key::Right => (*x, self.facing_right) = ((*x + 1).min(LAST), true),
            Key::Up => *y = (*y - 1).max(0),
            Key::Down => *y = (*y + 1).min(LAST - 1),
            _ => {}
        }
    }

    /// The player's bullets fly, and hit what is where they come to.
    fn move_bullets(&mut self, outcome: &mut Outcome) {
        for i in (0..self.bullets.len()).rev() {
            let bullet = &mut self.bullets[i];
            bullet.advance();
            let (place, gone) = ([bullet.x, bullet.y], !bullet.on_screen());
            let hit = !gone && self.hit(place);
            outcome.reward += u32::from(hit);
            if gone || hit {
                self.bullets.remove(i);
            }
        }
    }

    /// Takes away the enemy at a place, a fish before a submarine, if there is one.
    fn hit(&mut self, place: [i32; 2]) -> bool {
        if let Some(hit) = self.fish.iter().position(|fish| fish.is_at(place)) {
            self.fish.remove(hit);
            return true;
        }
        let hit = self.enemy_subs.iter().position(|sub| sub.hull.is_at(place));
        hit.map(|hit| self.enemy_subs.remove(hit)).is_some()
    }

    /// Divers are picked up where they meet the player, before or after they have moved.
    fn move_divers(&mut self) {
        for i in (0..self.divers.len()).rev() {
            let has_room = self.divers_on_board < CREW;
            let diver = &mut self.divers[i];
            if !(has_room && diver.is_at(self.sub)) {
                diver.swim(DIVER_MOVE_INTERVAL);
            }
            let picked_up = has_room && diver.is_at(self.sub);
            let gone = !diver.on_screen();
            self.divers_on_board += i32::from(picked_up);
            if picked_up || gone {
                self.divers.remove(i);
            }
        }
    }

    /// Moves an enemy; whether it is gone: shot, or off the screen.
    fn move_enemy(&mut self, enemy: &mut Swimmer, outcome: &mut Outcome) -> bool {
        outcome.over |= enemy.is_at(self.sub);
        if !enemy.swim(self.move_interval) {
            return false;
        }
        if !enemy.on_screen() {
            return true;
        }
        if enemy.is_at(self.sub) {
            outcome.over = true;
            return false;
        }
        let hit = self.bullets.iter().position(|bullet| bullet.is_at([enemy.x, enemy.y]));
        let Some(hit) = hit else { return false };
        self.bullets.remove(hit);
        outcome.reward += 1;
        true
    }

    fn move_enemy_subs(&mut self, outcome: &mut Outcome) {
        for i in (0..self.enemy_subs.len()).rev() {
            let mut sub = self.enemy_subs[i];
            let gone = self.move_enemy(&mut sub.hull, outcome);
            // One shot down at this very moment still shoots.
            if sub.shot_timer == 0 {
                sub.shot_timer = ENEMY_SHOT_INTERVAL;
                self.enemy_bullets.push(sub.hull);
            } else {
                sub.shot_timer -= 1;
            }
            if gone {
                self.enemy_subs.remove(i);
            } else {
                self.enemy_subs[i] = sub;
            }
        }
    }

    fn move_enemy_bullets(&mut self, outcome: &mut Outcome) {
        for i in (0..self.enemy_bullets.len()).rev() {
            let bullet = &mut self.enemy_bullets[i];
            outcome.over |= bullet.is_at(self.sub);
            bullet.advance();
            outcome.over |= bullet.is_at(self.sub);
            if !bullet.on_screen() {
                self.enemy_bullets.remove(i);
            }
        }
    }

    fn move_fish(&mut self, outcome: &mut Outcome) {
        for i in (0..self.fish.len()).rev() {
            let mut fish = self.fish[i];
            if self.move_enemy(&mut fish, outcome) {
                self.fish.remove(i);
            } else {
                self.fish[i] = fish;
            }
        }
    }

    /// Uses oxygen up under water, and surfaces where the player has come up.
    fn breathe(&mut self, ramping: bool, outcome: &mut Outcome) {
        outcome.over |= self.oxygen <= 0;
        if self.sub[1] > 0 {
            self.oxygen -= 1;
            self.at_surface = false;
        } else if !self.at_surface {
            if self.divers_on_board == 0 {
                outcome.over = true;
            } else {
                outcome.reward += self.surface(ramping);
            }
        }
    }

    /// Fills the tank for a diver; what six of them are paid.
    fn surface(&mut self, ramping: bool) -> u32 {
        self.at_surface = true;
        let mut pay = 0;
        if self.divers_on_board == CREW {
            self.divers_on_board = 0;
            pay = self.gauge();
        }
        self.oxygen = OXYGEN;
        self.divers_on_board -= 1;
        if ramping {
            self.ramp();
        }
        pay as u32
    }

    /// Enemies come faster, and every other time move faster, too.
    fn ramp(&mut self) {
        if self.spawn_interval <= 1 && self.move_interval <= FASTEST {
            return;
        }
        if self.move_interval > FASTEST && self.ramps % 2 == 1 {
            self.move_interval -= 1;
        }
        if self.spawn_interval > 1 {
            self.spawn_interval -= 1;
        }
        self.ramps += 1;
    }

    /// Cells of the gauge that the oxygen fills.
    fn gauge(&self) -> i32 {
        self.oxygen.max(0) * GAUGE / OXYGEN
    }
}

/// Something that appears at the side it moves away from, in any row under water.
fn spawn(right: bool, move_timer: u32, draws: &mut impl Draws) -> Swimmer {
    let y = 1 + draws.below(LANES) as i32;
    Swimmer { x: if right { 0 } else { LAST }, y, right, move_timer }
}

impl Game for Seaquest {
    const NAME: &'static str = "Seaquest";
    const CHANNELS: usize = 10;
    const KEYS: &'static [Key] = &Key::ALL;

    fn start(&mut self, _draws: &mut impl Draws) {
        *self = Self {
            sub: [5, 0],
            oxygen: OXYGEN,
            at_surface: true,
            spawn_interval: SPAWN_INTERVAL,
            spawn_timer: SPAWN_INTERVAL,
            diver_spawn_timer: DIVER_SPAWN_INTERVAL,
            move_interval: MOVE_INTERVAL,
            ..Self::default()
        };
    }

    fn play(&mut self, key: Key, ramping: bool, draws: &mut impl Draws) -> Outcome {
        if self.spawn_timer == 0 {
            self.spawn_enemy(draws);
            self.spawn_timer = self.spawn_interval;
        }
        if self.diver_spawn_timer == 0 {
            self.spawn_diver(draws);
            self.diver_spawn_timer = DIVER_SPAWN_INTERVAL;
        }
        let mut outcome = Outcome::default();
        self.press(key);
        self.move_bullets(&mut outcome);
        self.move_divers();
        self.move_enemy_subs(&mut outcome);
        self.move_enemy_bullets(&mut outcome);
        self.move_fish(&mut outcome);
        for timer in [&mut self.spawn_timer, &mut self.diver_spawn_timer, &mut self.shot_timer] {
            *timer = timer.saturating_sub(1);
        }
        self.breathe(ramping, &mut outcome);
        outcome
    }

    fn show(&self, screen: &mut Screen<'_>) {
        let [x, y] = self.sub;
        screen.put(x, y, SUB_FRONT);
        screen.put(if self.facing_right { x - 1 } else { x + 1 }, y, SUB_BACK);
        for cell in 0..self.gauge() {
            screen.put(cell, LAST, OXYGEN_GAUGE);
        }
        for diver in 1..=self.divers_on_board {
            screen.put(LAST - diver, LAST, DIVER_GAUGE);
        }
        for bullet in &self.bullets {
            screen.put(bullet.x, bullet.y, FRIENDLY_BULLET);
        }
        for bullet in &self.enemy_bullets {
            screen.put(bullet.x, bullet.y, ENEMY_BULLET);
        }
        let fish = self.fish.iter().map(|fish| (fish, ENEMY_FISH));
        let subs = self.enemy_subs.iter().map(|sub| (&sub.hull, ENEMY_SUB));
        for (swimmer, channel) in fish.chain(subs).chain(self.divers.iter().map(|diver| (diver, DIVER))) {
            screen.put(swimmer.x, swimmer.y, channel);
            screen.put(if swimmer.right { swimmer.x - 1 } else { swimmer.x + 1 }, swimmer.y, TRAIL);
        }
    }
}

//! MinAtar's Freeway: cross eight lanes of traffic, again and again.

use super::{Draws, Game, Key, LAST, Outcome, SIDE, Screen};

// Channels; the trail of a car that moves every k steps is in channel SPEED + k.
const CHICKEN: usize = 0;
const CAR: usize = 1;
const SPEED: usize = 1;

const LANES: usize = 8;
/// Column in which the chicken crosses.
const COLUMN: i32 = 4;
/// Steps from one move of the chicken to the next.
const MOVE_INTERVAL: u32 = 3;
/// The longest interval between two moves of a car, in steps.
const SLOWEST: u32 = 5;
/// Steps after which the game is over, less one.
const TIME: i32 = 2500;

/// A car in its lane.
#[derive(Debug, Clone, Copy, Default)]
struct Car {
    x: i32,
    /// It moves right, or else left.
    right: bool,
    /// Steps between two moves, 1 to 5, and until the next one; a car that moves every k steps rests k in between.
    interval: u32,
    timer: u32,
}

impl Car {
    fn ahead(&self) -> i32 {
        let x = if self.right { self.x + 1 } else { self.x - 1 };
        x.rem_euclid(SIDE as i32)
    }

    fn behind(&self) -> i32 {
        Self { right: !self.right, ..*self }.ahead()
    }
}

/// The chicken starts at the bottom and moves up or down at most every third step. At the top it earns 1, returns to the bottom,
/// and all cars get new speeds and directions. Cars move along their lanes and around the screen's edges; one that
/// hits the chicken sends it back to the bottom. The game is over after 2501 steps.
#[derive(Debug, Clone, Default)]
pub struct Freeway {
    /// Row of the chicken.
    chicken: i32,
    /// Steps until the chicken can move.
    move_timer: u32,
    /// `cars[i]` is in row i + 1.
    cars: [Car; LANES],
    time_left: i32,
}

impl Freeway {
    /// Gives every car a new speed and direction.
    fn shuffle_cars(&mut self, draws: &mut impl Draws) {
        for car in &mut self.cars {
            car.interval = 1 + draws.below(SLOWEST);
            car.timer = car.interval;
        }
        for car in &mut self.cars {
            car.right = !draws.chance(0.5);
        }
    }
}

impl Game for Freeway {
    const NAME: &'static str = "Freeway";
    const CHANNELS: usize = 7;
    const KEYS: &'static [Key] = &[Key::Idle, Key::Up, Key::Down];

    fn start(&mut self, draws: &mut impl Draws) {
        *self =
            Self { chicken: LAST, move_timer: MOVE_INTERVAL, cars: [Car::default(); LANES], time_left: TIME };
        self.shuffle_cars(draws);
    }

    #[inline]
    fn play(&mut self, key: Key, _ramping: bool, draws: &mut impl Draws) -> Outcome {
        let mut outcome = Outcome::default();
        if matches!(key, Key::Up | Key::Down) && self.move_timer == 0 {
            self.move_timer = MOVE_INTERVAL;
            let y = if key == Key::Up { self.chicken - 1 } else { self.chicken + 1 };
            self.chicken = y.clamp(0, LAST);
        }
        if self.chicken == 0 {
            outcome.reward = 1;
            self.shuffle_cars(draws);
            self.chicken = LAST;
        }
        for (lane, car) in self.cars.iter_mut().enumerate() {
            let row = lane as i32 + 1;
            if [car.x, row] == [COLUMN, self.chicken] {
                self.chicken = LAST;
            }
            if car.timer == 0 {
                car.timer = car.interval;
                car.x = car.ahead();
                if [car.x, row] == [COLUMN, self.chicken] {
                    self.chicken = LAST;
                }
            } else {
                car.timer -= 1;
            }
        }
        self.move_timer = self.move_timer.saturating_sub(1);
        self.time_left -= 1;
        outcome.over = self.time_left < 0;
        outcome
    }

    #[inline]
    fn show(&self, screen: &mut Screen<'_>) {
        screen.put(COLUMN, self.chicken, CHICKEN);
        for (lane, car) in self.cars.iter().enumerate() {
            let y = lane as i32 + 1;
            screen.put(car.x, y, CAR);
            screen.put(car.behind(), y, SPEED + car.interval as usize);
        }
    }
}

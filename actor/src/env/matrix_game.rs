//! Symmetric zero-sum games in which two players move at once, and how far a mixed strategy is from their equilibrium.
//!
//! [`MatrixGame`] is the payoff; [`repeated_game`](super::repeated_game) plays it against an opponent that adapts,
//! [`self_play`](super::self_play) lets a policy play itself.

use impresario_common::space::Space;

/// A game of two players with the same actions, one of whom wins what the other loses.
///
/// The value of such a game is 0 (von Neumann 1928).
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixGame {
    /// `payoff[a][b]`: what the player of `a` gets against `b`.
    payoff: Vec<Vec<f64>>,
}

/// What a player saw of the round before: its own action and the other player's; nothing in the first round.
pub type LastRound = Option<(usize, usize)>;

impl MatrixGame {
    /// The game with the given payoff to the player of `a` against the player of `b`, `payoff[a][b]`.
    ///
    /// # Panics
    /// If there is no action, or the payoff is not antisymmetric: `payoff[a][b] == -payoff[b][a]`.
    pub fn new(payoff: Vec<Vec<f64>>) -> Self {
        let actions = payoff.len();
        assert!(actions > 0, "a game has an action");
        for (a, row) in payoff.iter().enumerate() {
            assert_eq!(row.len(), actions, "both players have the same actions");
            for (b, &value) in row.iter().enumerate() {
                assert_eq!(value, -payoff[b][a], "what {a} gets against {b} is what {b} loses against {a}");
            }
        }
        Self { payoff }
    }

    /// Rock (0), paper (1) and scissors (2): 1 for a win, -1 for a loss, 0 for a tie.
    pub fn rock_paper_scissors() -> Self {
        Self::new(vec![vec![0.0, -1.0, 1.0], vec![1.0, 0.0, -1.0], vec![-1.0, 1.0, 0.0]])
    }

    /// How many actions each player has.
    pub fn actions(&self) -> usize {
        self.payoff.len()
    }

    /// What the player of `own` gets against the player of `other`.
    ///
    /// # Panics
    /// If either is no action of the game.
    #[inline]
    pub fn payoff(&self, own: usize, other: usize) -> f64 {
        self.payoff[own][other]
    }

    /// What `action` gets on average against a player who plays by the weights `mix`, which need not sum to 1: `(A p)_a`.
    ///
    /// # Panics
    /// If there is another number of weights than of actions.
    #[inline]
    pub fn expected(&self, action: usize, mix: &[f64]) -> f64 {
        assert_eq!(mix.len(), self.actions(), "one weight an action");
        self.payoff[action].iter().zip(mix).map(|(payoff, weight)| payoff * weight).sum()
    }

    /// What the best response wins a round on average against a player of the mixed strategy `mix`: `max_a (A p)_a`.
    /// 0 for an equilibrium strategy, above 0 for any other (Johanson et al. 2011, "Accelerating Best Response
    /// Calculation in Large Extensive Games", defines it so; the value that it subtracts is 0 here).
    ///
    /// # Panics
    /// If there is another number of probabilities than of actions.
    pub fn exploitability(&self, mix: &[f64]) -> f64 {
        (0..self.actions()).map(|action| self.expected(action, mix)).fold(f64::NEG_INFINITY, f64::max)
    }

    /// What a player of the repeated game sees: a flag of the first round, then its own last action and the other
    /// player's, each as a one-hot code.
    pub(super) fn observation_space(&self) -> Space {
        let len = 1 + 2 * self.actions();
        Space::boxed(&vec![0.0; len], &vec![1.0; len])
    }

    /// Writes what a player sees.
    pub(super) fn observe(&self, last: LastRound, observation: &mut [f32]) {
        observation.fill(0.0);
        match last {
            None => observation[0] = 1.0,
            Some((own, other)) => {
                observation[1 + own] = 1.0;
                observation[1 + self.actions() + other] = 1.0;
            }
        }
    }

    /// Number of what a player sees, from 0; there are `1 + actions * actions`.
    pub(super) fn context(&self, last: LastRound) -> usize {
        last.map_or(0, |(own, other)| 1 + own * self.actions() + other)
    }
}

//! Pacing: who may start an unroll now, and when a batch may be trained, so that the lag bound holds.
//!
//! Stale-synchronous pacing by tickets. A grant permits one unroll, to be acted with at least the policy
//! version in force when it was given; its ticket stands until the unroll's last column is trained. With a
//! bound of K updates, an unroll acted with version `a` is due by the update that turns version `a + K` into
//! the next. Two rules keep every unroll within its due:
//!
//! * **Granting**: tickets never cover more than `(K + 1) B` columns, those of the batch in training
//!   included: as many as the K + 1 updates up to the due of a new grant can train.
//! * **Training**: a batch takes the columns that are due first, and only if afterwards, for every due
//!   date, the columns due by then (finished or not) fit into the updates left until then.
//!
//! So stale work is not produced, rather than produced and thrown away. K = 0 is lockstep: all unrolls of a
//! batch are acted with the very version that is trained. Without a bound, one endless grant is given.
//!
//! A batch is complete with B columns, or with fewer when no further unroll could be granted before it is
//! trained (B is no multiple of the unrolls' columns, or actors have left).
//!
//! Pure bookkeeping: no clocks, no locks; [`crate::intake`] holds it under its lock.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Place of an actor in the roster.
pub type ActorId = u32;

/// Permission to start the unrolls `from..upto`, acted with `min_version` or newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Index of the first unroll permitted.
    pub from: u64,
    /// Index after the last one.
    pub upto: u64,
    /// Oldest policy version that may act them.
    pub min_version: u64,
}

/// Largest index that an actor's grants may count from. No actor has had as many, whatever it claims, and counting on from there never
/// overflows.
const MAX_FIRST_GRANT: u64 = 1 << 48;

/// What became of a delivered unroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It may be queued.
    Accepted,
    /// Its grant was revoked and training on it would break the bound.
    Revoked,
    /// It names a grant that was never given.
    NeverGranted,
    /// It was acted with an older version than its grant asked for.
    TooOld,
}

/// An unroll granted and not yet delivered.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    min_version: u64,
    columns: usize,
}

/// What pacing knows of an actor.
#[derive(Debug)]
struct Member {
    workers: usize,
    /// E: columns of each of its unrolls.
    columns: usize,
    /// Whether it may be given grants: connected and heard of.
    active: bool,
    /// Index of the next grant.
    next_grant: u64,
    /// Unrolls granted and not delivered.
    pending: usize,
    /// Grants that its stream has yet to send.
    unsent: Vec<Grant>,
}

impl Member {
    fn load(&self, actor: ActorId) -> Load {
        Load { pending: self.pending, workers: self.workers, actor }
    }
}

/// How much an actor has in hand. Ordered by unrolls granted and not delivered per worker, then by actor.
#[derive(Debug, Clone, Copy)]
struct Load {
    pending: usize,
    workers: usize,
    actor: ActorId,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        // pending / workers, compared without division.
        let per_worker = (self.pending * other.workers).cmp(&(other.pending * self.workers));
        per_worker.then(self.actor.cmp(&other.actor))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Load {}

/// Columns by policy version, and how many they are together. There are only as many versions as the bound lets
/// apart, however many actors.
#[derive(Debug, Default, Clone)]
struct Columns {
    by_version: BTreeMap<u64, usize>,
    total: usize,
}

impl Columns {
    fn add(&mut self, version: u64, columns: usize) {
        *self.by_version.entry(version).or_default() += columns;
        self.total += columns;
    }

    fn remove(&mut self, version: u64, columns: usize) {
        let Some(left) = self.by_version.get_mut(&version) else { return };
        *left -= columns;
        self.total -= columns;
        if *left == 0 {
            self.by_version.remove(&version);
        }
    }

    /// Removes `columns` columns, those of the oldest versions first.
    fn take_oldest(&mut self, mut columns: usize) {
        self.total -= columns.min(self.total);
        while let Some(mut oldest) = self.by_version.first_entry() {
            if *oldest.get() > columns {
                *oldest.get_mut() -= columns;
                return;
            }
            columns -= *oldest.get();
            oldest.remove();
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Pacing {
    /// K; `None` is free-running.
    bound: Option<u64>,
    /// B.
    batch: usize,
    /// Columns that there is room for.
    limit: usize,
    /// Members needed before the first grant.
    wait_for: usize,
    started: bool,
    /// The learner's policy version.
    version: u64,
    members: BTreeMap<ActorId, Member>,
    /// The active members' loads, by the columns of their unrolls: of each size, the first is the next to be
    /// granted one. There are as many sizes as kinds of actors.
    candidates: BTreeMap<usize, BTreeSet<Load>>,
    /// Members that have been given grants since somebody asked.
    news: BTreeSet<ActorId>,
    /// Unrolls granted and not delivered.
    tickets: BTreeMap<(ActorId, u64), Ticket>,
    /// Their columns, by the oldest version that may act them.
    granted: Columns,
    /// Columns that wait to be trained, by the version that acted them.
    queued: Columns,
    /// Columns of the batch in training.
    training: usize,
}

impl Pacing {
    /// Pacing with lag bound `bound` (K), `batch` columns (B), starting when `wait_for` actors have joined.
    pub fn new(bound: Option<u64>, batch: usize, wait_for: usize, version: u64) -> Self {
        Self {
            bound,
            batch,
            limit: usize::MAX,
            wait_for,
            started: false,
            version,
            members: BTreeMap::new(),
            candidates: BTreeMap::new(),
            news: BTreeSet::new(),
            tickets: BTreeMap::new(),
            granted: Columns::default(),
            queued: Columns::default(),
            training: 0,
        }
    }

    /// Columns that tickets may cover at once.
    fn capacity(&self) -> usize {
        self.bound
            .map_or(usize::MAX, |k| usize::try_from(k).unwrap_or(usize::MAX).saturating_add(1))
            .saturating_mul(self.batch)
            // A batch must fit, or nothing would ever be trained.
            .min(self.limit.max(self.batch))
    }

    /// Grants no more than there is room for.
    pub fn limit_columns(&mut self, columns: usize) {
        self.limit = columns;
    }

    /// Whether unrolls of `columns` columns can ever be granted.
    ///
    /// # Errors
    /// With a message that says what to change.
    pub fn check_columns(&self, columns: usize) -> Result<(), String> {
        let capacity = self.capacity();
        if columns <= capacity {
            return Ok(());
        }
        Err(format!(
            "an unroll of {columns} environment copies exceeds the {capacity} columns that may be under way with \
             learner.batch_size = {} and learner.max_policy_lag = {}: start the actor with fewer --envs or more \
             --workers, or raise one of the two on the learner",
            self.batch,
            self.bound.unwrap_or(0),
        ))
    }

    /// Whether the first grant has been given.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Adds an actor, replacing its former incarnation; its grants count from `first_grant`, where there is a bound.
    pub fn join(&mut self, actor: ActorId, workers: usize, columns: usize, first_grant: u64) {
        self.remove(actor);
        let next_grant = if self.bound.is_some() { first_grant.min(MAX_FIRST_GRANT) } else { 0 };
        let member = Member { workers, columns, active: true, next_grant, pending: 0, unsent: vec![] };
        self.members.insert(actor, member);
        self.change(actor, |_| {});
        if self.bound.is_none() {
            self.free();
        }
        self.issue();
    }

    /// Takes an actor out and its grants back.
    pub fn remove(&mut self, actor: ActorId) {
        self.revoke(actor);
        self.change(actor, |member| member.active = false);
        self.members.remove(&actor);
        self.news.remove(&actor);
        self.issue();
    }

    /// Takes back the grants of an actor that is silent, and gives it no more until [`Self::activate`].
    /// Returns whether it was active before.
    pub fn suspend(&mut self, actor: ActorId) -> bool {
        if !self.members.get(&actor).is_some_and(|member| member.active) {
            return false;
        }
        self.change(actor, |member| member.active = false);
        self.revoke(actor);
        self.issue();
        true
    }

    /// The actor may be given grants (again).
    pub fn activate(&mut self, actor: ActorId) {
        if self.members.get(&actor).is_some_and(|member| !member.active) {
            self.change(actor, |member| member.active = true);
            self.issue();
        }
    }

    /// An actor's stream is new: whatever it holds must be sent (again).
    pub fn resend(&mut self, actor: ActorId) {
        let Some(member) = self.members.get_mut(&actor) else { return };
        member.unsent = match self.bound {
            None if self.started => vec![Grant { from: 0, upto: u64::MAX, min_version: 0 }],
            _ => vec![],
        };
        for (&(_, index), ticket) in self.tickets.range((actor, 0)..=(actor, u64::MAX)) {
            append(&mut member.unsent, index, ticket.min_version);
        }
        if !member.unsent.is_empty() {
            self.news.insert(actor);
        }
    }

    /// Grants to send to an actor, each handed out once.
    pub fn take_unsent(&mut self, actor: ActorId) -> Vec<Grant> {
        self.members.get_mut(&actor).map(|m| std::mem::take(&mut m.unsent)).unwrap_or_default()
    }

    /// Actors that have been given grants since the last call.
    pub fn take_news(&mut self) -> BTreeSet<ActorId> {
        std::mem::take(&mut self.news)
    }

    /// An unroll has arrived that `actor` acted with `acted` under grant `index`.
    pub fn deliver(&mut self, actor: ActorId, index: u64, acted: u64) -> Delivery {
        let Some(member) = self.members.get(&actor) else { return Delivery::Revoked };
        let columns = member.columns;
        if acted > self.version {
            return Delivery::NeverGranted;
        }
        if self.bound.is_some() {
            if index >= member.next_grant {
                return Delivery::NeverGranted;
            }
            match self.tickets.get(&(actor, index)) {
                Some(ticket) if acted < ticket.min_version => return Delivery::TooOld,
                Some(&Ticket { min_version, columns }) => {
                    self.tickets.remove(&(actor, index));
                    self.granted.remove(min_version, columns);
                    self.change(actor, |member| member.pending -= 1);
                }
                // Late, after its grant went to others: welcome if there is still room for it.
                None if !self.fits(acted, columns) => return Delivery::Revoked,
                None => {}
            }
        }
        self.queued.add(acted, columns);
        Delivery::Accepted
    }

    /// The unroll that `actor` acted under grant `index` is of no use: its ticket, if it has one, goes to others.
    pub fn withdraw(&mut self, actor: ActorId, index: u64) -> Delivery {
        if let Some(ticket) = self.tickets.remove(&(actor, index)) {
            self.granted.remove(ticket.min_version, ticket.columns);
            self.change(actor, |member| member.pending -= 1);
            self.issue();
        }
        Delivery::Revoked
    }

    /// Columns that the next batch may take now, 0 if it must wait. Take those acted with the oldest versions
    /// first and say so by [`Self::begin`].
    pub fn ready(&self) -> usize {
        let Some(bound) = self.bound else {
            return if self.queued.total >= self.batch { self.batch } else { 0 };
        };
        let take = self.queued.total.min(self.batch);
        if take == 0 || (take < self.batch && !self.nothing_to_come()) {
            return 0;
        }
        // Columns left after the batch, by the version that acts them (for tickets, at least).
        let mut left = self.queued.clone();
        left.take_oldest(take);
        let updates = |acted: u64| acted.saturating_add(bound).saturating_sub(self.version);
        if self.in_time(left, updates) { take } else { 0 }
    }

    /// A batch of `columns` columns is taken for training.
    pub fn begin(&mut self, columns: usize) {
        self.queued.take_oldest(columns);
        self.training = columns;
    }

    /// The batch in training is done with, and the learner's version is now `version`.
    pub fn finish(&mut self, version: u64) {
        self.version = version;
        self.training = 0;
        self.issue();
    }

    /// Whether, for every due date, `waiting` and what is granted and due by then fits into the updates left until
    /// then: `updates` for what a version acted.
    fn in_time(&self, mut waiting: Columns, updates: impl Fn(u64) -> u64) -> bool {
        for (&version, &columns) in &self.granted.by_version {
            waiting.add(version, columns);
        }
        let mut due = 0usize;
        waiting.by_version.iter().all(|(&acted, &columns)| {
            due += columns;
            due <= (updates(acted) as usize).saturating_mul(self.batch)
        })
    }

    /// Unrolls granted and not delivered.
    pub fn pending(&self) -> usize {
        self.tickets.len()
    }

    /// Takes back an actor's undelivered grants.
    fn revoke(&mut self, actor: ActorId) {
        let theirs = self.tickets.range((actor, 0)..=(actor, u64::MAX));
        let theirs: Vec<u64> = theirs.map(|(&(_, index), _)| index).collect();
        for index in theirs {
            if let Some(ticket) = self.tickets.remove(&(actor, index)) {
                self.granted.remove(ticket.min_version, ticket.columns);
            }
        }
        self.change(actor, |member| {
            member.pending = 0;
            member.unsent.clear();
        });
    }

    /// Changes a member, and its place among the candidates with it.
    fn change(&mut self, actor: ActorId, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.members.get_mut(&actor) else { return };
        if let Some(alike) = self.candidates.get_mut(&member.columns) {
            alike.remove(&member.load(actor));
            if alike.is_empty() {
                self.candidates.remove(&member.columns);
            }
        }
        change(member);
        if member.active {
            self.candidates.entry(member.columns).or_default().insert(member.load(actor));
        }
    }

    fn covered(&self) -> usize {
        self.granted.total + self.queued.total + self.training
    }

    /// Whether no unroll is on its way and none can be granted before the next update.
    fn nothing_to_come(&self) -> bool {
        let free = self.capacity() - self.covered().min(self.capacity());
        let smallest = self.candidates.keys().next();
        self.tickets.is_empty() && smallest.is_some_and(|&columns| columns > free)
    }

    /// Whether `columns` more columns acted with `acted` can be trained in time.
    fn fits(&self, acted: u64, columns: usize) -> bool {
        let Some(bound) = self.bound else { return true };
        if self.covered() + columns > self.capacity() {
            return false;
        }
        let mut all = self.queued.clone();
        all.add(acted, columns);
        // The update in training, if any, is spoken for.
        let first_update = self.version + u64::from(self.training > 0);
        let updates = |acted: u64| acted.saturating_add(bound).saturating_add(1).saturating_sub(first_update);
        self.in_time(all, updates)
    }

    /// Starts when there are members enough.
    fn start(&mut self) -> bool {
        self.started |= !self.members.is_empty() && self.members.len() >= self.wait_for;
        self.started
    }

    /// Gives members their endless grants, where there is no bound.
    fn free(&mut self) {
        if !self.start() {
            return;
        }
        for (&actor, member) in self.members.iter_mut().filter(|(_, m)| m.next_grant == 0) {
            member.next_grant = u64::MAX;
            member.unsent.push(Grant { from: 0, upto: u64::MAX, min_version: 0 });
            self.news.insert(actor);
        }
    }

    /// Gives every grant that may be given under the bound, to whoever holds the fewest per worker.
    fn issue(&mut self) {
        if self.bound.is_none() || !self.start() {
            return;
        }
        let capacity = self.capacity();
        while let Some(free) = capacity.checked_sub(self.covered()) {
            let next = self.candidates.range(..=free).filter_map(|(_, alike)| alike.first()).min();
            let Some(&Load { actor, .. }) = next else { break };
            let version = self.version;
            let mut ticket = Ticket { min_version: version, columns: 0 };
            let mut index = 0;
            self.change(actor, |member| {
                (index, ticket.columns) = (member.next_grant, member.columns);
                member.next_grant += 1;
                member.pending += 1;
                append(&mut member.unsent, index, version);
            });
            self.granted.add(ticket.min_version, ticket.columns);
            self.tickets.insert((actor, index), ticket);
            self.news.insert(actor);
        }
    }
}

/// Adds the grant `index` to those to be sent, as few ranges as may be.
fn append(unsent: &mut Vec<Grant>, index: u64, min_version: u64) {
    match unsent.last_mut() {
        Some(last) if last.upto == index && last.min_version == min_version => last.upto += 1,
        _ => unsent.push(Grant { from: index, upto: index + 1, min_version }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lockstep_shares_one_batch_evenly_and_waits_for_all_of_it() {
        let mut pacing = Pacing::new(Some(0), 32, 2, 0);
        pacing.join(0, 1, 8, 0);
        assert!(pacing.take_unsent(0).is_empty(), "it waits for the second actor");
        pacing.join(1, 1, 8, 0);
        let expected = [Grant { from: 0, upto: 2, min_version: 0 }];
        assert_eq!(pacing.take_unsent(0), expected);
        assert_eq!(pacing.take_unsent(1), expected);
        for (actor, index) in [(0, 0), (1, 0), (1, 1)] {
            assert_eq!(pacing.deliver(actor, index, 0), Delivery::Accepted);
            assert_eq!(pacing.ready(), 0);
        }
        pacing.deliver(0, 1, 0);
        assert_eq!(pacing.ready(), 32);
        pacing.begin(32);
        assert!(pacing.take_unsent(0).is_empty(), "nothing starts while the update runs");
        pacing.finish(1);
        assert_eq!(pacing.take_unsent(0), [Grant { from: 2, upto: 4, min_version: 1 }]);
    }

    #[test]
    fn a_dead_actors_grants_go_to_the_living() {
        let mut pacing = Pacing::new(Some(0), 16, 2, 0);
        pacing.join(0, 1, 8, 0);
        pacing.join(1, 1, 8, 0);
        pacing.take_unsent(1);
        pacing.suspend(0);
        assert_eq!(pacing.take_unsent(1), [Grant { from: 1, upto: 2, min_version: 0 }]);
        pacing.deliver(1, 0, 0);
        pacing.deliver(1, 1, 0);
        assert_eq!(pacing.ready(), 16);
        // Back from the dead with what it had: no room is left before the update.
        assert_eq!(pacing.deliver(0, 0, 0), Delivery::Revoked);
    }

    #[test]
    fn a_batch_is_smaller_where_unrolls_do_not_fill_it() {
        let mut pacing = Pacing::new(Some(0), 32, 1, 0);
        pacing.join(0, 1, 24, 0);
        pacing.deliver(0, 0, 0);
        assert_eq!(pacing.ready(), 24);
        assert!(pacing.check_columns(33).unwrap_err().contains("fewer --envs"));
    }

    #[test]
    fn an_actor_of_a_run_without_a_bound_is_granted_unrolls_where_there_is_one() {
        let mut pacing = Pacing::new(Some(0), 8, 1, 0);
        pacing.join(0, 1, 4, u64::MAX);
        let grants = pacing.take_unsent(0);
        assert_eq!(grants.iter().map(|grant| grant.upto - grant.from).sum::<u64>(), 2, "{grants:?}");
    }

    #[test]
    fn what_was_never_granted_is_told_apart() {
        let mut pacing = Pacing::new(Some(1), 8, 1, 5);
        pacing.join(0, 1, 8, 0);
        assert_eq!(pacing.deliver(0, 2, 5), Delivery::NeverGranted);
        assert_eq!(pacing.deliver(0, 0, 6), Delivery::NeverGranted, "a version that does not exist yet");
        assert_eq!(pacing.deliver(0, 0, 4), Delivery::TooOld);
        assert_eq!(pacing.deliver(0, 0, 5), Delivery::Accepted);
    }

    #[test]
    fn without_a_bound_everyone_runs_freely() {
        let mut pacing = Pacing::new(None, 8, 1, 0);
        pacing.join(3, 1, 4, 0);
        assert_eq!(pacing.take_unsent(3), [Grant { from: 0, upto: u64::MAX, min_version: 0 }]);
        pacing.deliver(3, 0, 0);
        assert_eq!(pacing.ready(), 0);
        pacing.deliver(3, 1, 0);
        assert_eq!(pacing.ready(), 8);
    }

    /// An actor of the simulation: grants in hand, and unrolls under way as (index, acted version).
    #[derive(Default)]
    struct Simulated {
        grants: Vec<Grant>,
        under_way: Vec<(u64, u64)>,
        alive: bool,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever order unrolls start, finish and vanish in, no column is trained beyond the bound, and the
        /// learner never gets stuck.
        #[test]
        fn the_bound_holds_and_nothing_deadlocks(
            bound in 0u64..4,
            batch in 1usize..40,
            shapes in prop::collection::vec((1usize..3, 1usize..20), 1..5),
            choices in prop::collection::vec((0u8..100, any::<u16>()), 300),
        ) {
            let mut pacing = Pacing::new(Some(bound), batch, 1, 0);
            let shapes: Vec<_> = shapes.into_iter().map(|(w, c)| (w, c.min(batch))).collect();
            let mut actors: Vec<Simulated> = vec![];
            for (id, &(workers, columns)) in shapes.iter().enumerate() {
                pacing.join(id as u32, workers, columns, 0);
                actors.push(Simulated { alive: true, ..Simulated::default() });
            }
            let mut queue: Vec<(u64, usize)> = vec![];
            let mut version = 0;
            let mut updates_after_quiet = 0;
            // After the random part, everything delivers, so that progress must follow.
            let quiet = std::iter::repeat_n((50u8, 0u16), 200);
            for (step, (what, who)) in choices.into_iter().chain(quiet).enumerate() {
                let id = if step < 300 { who as usize % actors.len() } else { step % actors.len() };
                let columns = shapes[id].1;
                for (id, actor) in actors.iter_mut().enumerate() {
                    for grant in pacing.take_unsent(id as u32) {
                        actor.grants.push(grant);
                    }
                }
                let actor = &mut actors[id];
                match what {
                    // Start an unroll with the newest version.
                    0..40 => {
                        if let Some(grant) = actor.grants.first_mut() {
                            actor.under_way.push((grant.from, version.max(grant.min_version)));
                            grant.from += 1;
                            if grant.from == grant.upto { actor.grants.remove(0); }
                        }
                    }
                    // Start and finish all.
                    40..90 => {
                        for grant in actor.grants.drain(..) {
                            actor.under_way.extend((grant.from..grant.upto).map(|i| (i, version)));
                        }
                        for (index, acted) in actor.under_way.drain(..) {
                            if pacing.deliver(id as u32, index, acted) == Delivery::Accepted {
                                queue.push((acted, columns));
                            }
                        }
                    }
                    90..95 => {
                        pacing.suspend(id as u32);
                        actor.grants.clear();
                        if who % 2 == 0 { actor.under_way.clear(); }
                        actor.alive = false;
                    }
                    _ => {}
                }
                if !actors[id].alive && (step >= 300 || who % 3 == 0) {
                    actors[id].alive = true;
                    pacing.activate(id as u32);
                }
                let take = pacing.ready();
                if take > 0 {
                    pacing.begin(take);
                    queue.sort_by_key(|&(acted, _)| acted);
                    let mut rest = take;
                    while rest > 0 {
                        let (acted, available) = &mut queue[0];
                        prop_assert!(version - *acted <= bound, "trained {acted} at {version}, bound {bound}");
                        let part = rest.min(*available);
                        rest -= part;
                        *available -= part;
                        if *available == 0 { queue.remove(0); }
                    }
                    version += 1;
                    pacing.finish(version);
                    if step >= 350 { updates_after_quiet += 1; }
                }
            }
            prop_assert!(updates_after_quiet > 0, "stuck at version {version}");
        }
    }
}

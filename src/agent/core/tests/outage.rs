//! The backend is away for long, in part or as a whole, and nothing is lost, doubled or turned about.

use std::collections::VecDeque;

use super::*;

/// What the backend's routes do, and what went over them.
struct Outage {
    desk: Desk,
    /// The courier's errands: it carries one after the other.
    errands: VecDeque<Action>,
    beats_work: bool,
    completions_work: bool,
    delivered: Vec<Key>,
    booked: Vec<Key>,
}

fn name(n: u32) -> String {
    format!("job-{n:02}")
}

impl Outage {
    fn new(slots: u32) -> Self {
        let mut desk = Desk::online(Rules { slots: slots as usize, ..rules() }, vec![]);
        let offers: Vec<Offer> = (0..slots).map(name).map(|name| offer(&name)).collect();
        assert_eq!(starts(&desk.offered(offers)).len(), slots as usize);
        let (errands, delivered, booked) = (VecDeque::new(), vec![], vec![]);
        Self { desk, errands, beats_work: true, completions_work: true, delivered, booked }
    }

    /// Takes the actions up, and everything that follows from them.
    fn take_up(&mut self, actions: Vec<Action>) {
        let mut todo = VecDeque::from(actions);
        loop {
            let Some(action) = todo.pop_front() else {
                let Some(errand) = self.errands.pop_front() else { return };
                todo.extend(self.carry(errand));
                continue;
            };
            match action {
                Action::Errand(Errand::Ask { .. } | Errand::Send { .. }) => {
                    self.errands.push_back(action);
                }
                Action::Beat { .. } => {
                    todo.extend(match self.beats_work {
                        true => self.desk.good_beat(Heard::default()),
                        false => self.desk.bad_beat(unreachable()),
                    });
                }
                Action::Register => {
                    let call = Err(RegisterError::Call(unreachable()));
                    let answer = if self.beats_work { Ok(()) } else { call };
                    todo.extend(self.desk.event(Event::Registered(answer)));
                }
                Action::Book { key, booking } => {
                    assert_eq!(booking, Booking::Delivered);
                    self.booked.push(key);
                }
                _ => {}
            }
        }
    }

    fn carry(&mut self, errand: Action) -> Vec<Action> {
        match (errand, self.completions_work) {
            (Action::Errand(Errand::Ask { key, .. }), true) => {
                self.desk.asked(&key, Ok(JobState::Running))
            }
            (Action::Errand(Errand::Ask { key, .. }), false) => {
                self.desk.asked(&key, Err(unreachable()))
            }
            (Action::Errand(Errand::Send { key, .. }), true) => {
                self.delivered.push(key.clone());
                self.desk.sent(&key, Ok(Receipt::Acknowledged))
            }
            (Action::Errand(Errand::Send { key, .. }), false) => {
                self.desk.sent(&key, Err(status_error(502, false, None)))
            }
            (other, _) => panic!("{other:?} is no errand"),
        }
    }

    fn wait_due(&mut self) {
        let (_, actions) = self.desk.wait_due();
        self.take_up(actions);
    }

    /// As much time passes as so many beats take, and all jobs end meanwhile.
    fn pass(&mut self, beats: u32, jobs: u32) {
        let since = self.desk.now;
        for ended in 0..jobs {
            while self.desk.now - since < INTERVAL * (beats * ended / jobs) {
                self.wait_due();
            }
            let actions = self.desk.ends(&key(&name(ended)), Verdict::Completed);
            self.take_up(actions);
        }
        while self.desk.now - since < INTERVAL * beats {
            self.wait_due();
        }
    }

    fn all_arrive_in_order(&mut self, jobs: u32) {
        let since = self.desk.now;
        while self.delivered.len() < jobs as usize {
            self.wait_due();
            let waited = self.desk.now - since;
            assert!(waited < Duration::from_secs(600), "{} of {jobs}", self.delivered.len());
        }
        let wanted: Vec<Key> = (0..jobs).map(name).map(|name| key(&name)).collect();
        assert_eq!(self.delivered, wanted, "in the order in which the jobs came, each once");
        assert_eq!(self.booked, wanted);
        for _ in 0..20 {
            self.wait_due();
        }
        assert_eq!(self.delivered.len(), jobs as usize, "and never again");
    }
}

#[test]
fn fifty_results_wait_three_hundred_beats_for_a_route_and_arrive_in_order_once() {
    let mut outage = Outage::new(50);
    outage.completions_work = false;
    outage.pass(300, 50);
    assert!(outage.delivered.is_empty() && outage.booked.is_empty());
    outage.completions_work = true;
    outage.all_arrive_in_order(50);
}

#[test]
fn fifty_results_wait_three_hundred_beats_for_the_backend_and_arrive_in_order_once() {
    let mut outage = Outage::new(50);
    (outage.beats_work, outage.completions_work) = (false, false);
    outage.pass(300, 50);
    (outage.beats_work, outage.completions_work) = (true, true);
    outage.all_arrive_in_order(50);
}

#[test]
fn one_result_that_is_never_taken_holds_up_no_other() {
    let mut desk = Desk::online(rules(), vec![]);
    let stuck = desk.running("stuck");
    desk.ends(&stuck, Verdict::Completed);
    desk.sent(&stuck, Err(status_error(500, true, None)));
    desk.good_beat(Heard::default());
    let other = desk.running("other");
    assert_eq!(desk.ends(&other, Verdict::Completed), [send(&other)]);
    assert_eq!(desk.sent(&other, Ok(Receipt::Acknowledged))[0], book(&other, Booking::Delivered));
}

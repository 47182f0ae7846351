//! Which numbers an optimizer can work with.

use super::Optimizer;
use ocellus_engine::Rule;

impl Optimizer {
    /// What is wrong with the optimizer's numbers: what a mean keeps of itself must leave room for what is new.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut kept = match self.rule() {
            Rule::Adam { beta_1, beta_2, .. }
            | Rule::Nadam { beta_1, beta_2, .. }
            | Rule::Lamb { beta_1, beta_2, .. }
            | Rule::Lion { beta_1, beta_2, .. } => vec![("beta_1", beta_1), ("beta_2", beta_2)],
            Rule::RmsProp { rho, .. } => vec![("rho", rho)],
            _ => Vec::new(),
        };
        // The rule above is that of what is no matrix.
        if let Optimizer::Muon(muon) = self {
            kept.push(("momentum", muon.momentum));
        }
        match kept.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            None => Ok(()),
            Some((name, value)) => {
                Err(format!("the optimizer's {name} must be at least 0 and below 1, received {value}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Adam, AdamW, Lamb, Lion, Muon, Nadam, RmsProp};
    use super::*;

    #[test]
    fn means_must_leave_room_for_what_is_new() {
        for name in Optimizer::NAMES {
            assert_eq!(Optimizer::named(name).unwrap().check(), Ok(()), "{name}");
        }
        let wrong: [(Optimizer, &str); 8] = [
            (Nadam::new().beta_1(1.0).into(), "beta_1 must be at least 0 and below 1, received 1"),
            (Nadam::new().beta_2(1.5).into(), "beta_2 must be at least 0 and below 1, received 1.5"),
            (Adam::new().beta_1(-0.1).into(), "beta_1"),
            (AdamW::new().beta_2(f32::NAN).into(), "beta_2"),
            (Lamb::new().beta_1(2.0).into(), "beta_1"),
            (Lion::new().beta_2(1.0).into(), "beta_2"),
            (RmsProp::new().rho(1.0).into(), "rho"),
            (Muon::new().momentum(1.0).into(), "momentum"),
        ];
        for (optimizer, expected) in wrong {
            let message = optimizer.check().unwrap_err();
            assert!(message.contains(expected), "{optimizer:?}: {message}");
        }
    }
}

//! Exceptions and policies, as an operator decides them.

use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::posture::CheckId;

use super::AdminAnswer;
use super::answer::{
    decision_table, done, exception_table, moment, policy_table, policy_words, refused,
};
use super::operator::{Operator, Outcome};
use crate::posture::{Decision, Exception, ExceptionTerms, PolicyChange, PolicyTerms, Scope};

impl Operator {
    pub(super) async fn exception_add(&self, terms: ExceptionTerms, at: SystemTime) -> Outcome {
        if self.live.roster().row(&terms.agency).is_none() {
            return Ok(refused(format!("{} is not in the roster; see roster show", terms.agency)));
        }
        let exception = Exception::new(terms, at)?;
        let Exception { agency, check, expires, .. } = &exception;
        let said = format!(
            "{check} of {agency} is accepted until {}; it goes on counting as failed\n",
            moment(*expires)
        );
        let all = self.store.put_exception(exception).await?;
        self.live.replace_exceptions(all.into_iter().collect());
        Ok(done(said))
    }

    pub(super) async fn exception_list(&self, agency: Option<AgencyId>, at: SystemTime) -> Outcome {
        let mut all = self.store.exceptions().await?;
        all.retain(|exception| agency.as_ref().is_none_or(|only| exception.agency == *only));
        all.sort_by(|a, b| (&a.agency, a.check).cmp(&(&b.agency, b.check)));
        Ok(done(exception_table(&all, at)))
    }

    pub(super) async fn exception_remove(
        &self,
        agency: AgencyId,
        check: CheckId,
        at: SystemTime,
    ) -> Outcome {
        let Some(left) = self.store.remove_exception(agency.clone(), check, at).await? else {
            return Ok(refused(format!(
                "there is no exception for {check} of {agency}; see exception list"
            )));
        };
        self.live.replace_exceptions(left.into_iter().collect());
        Ok(done(format!("{check} of {agency} is accepted no more\n")))
    }

    pub(super) async fn policy_set(
        &self,
        scope: Scope,
        change: PolicyChange,
        words: (&str, &str),
        at: SystemTime,
    ) -> Outcome {
        if change == PolicyChange::default() {
            return Ok(refused("name what is to be asked; see policy set --help"));
        }
        let former = self.live.policies().decision(&scope).map(|former| former.terms.clone());
        let terms = former.unwrap_or_default().changed(change)?;
        self.decide(scope, terms, words, at).await
    }

    pub(super) async fn policy_clear(
        &self,
        scope: Scope,
        words: (&str, &str),
        at: SystemTime,
    ) -> Outcome {
        let former = self.live.policies().decision(&scope).map(|former| former.terms.clone());
        if former.unwrap_or_default() == PolicyTerms::default() {
            return Ok(refused("nothing was decided there; see policy list"));
        }
        self.decide(scope, PolicyTerms::default(), words, at).await
    }

    async fn decide(
        &self,
        scope: Scope,
        terms: PolicyTerms,
        words: (&str, &str),
        at: SystemTime,
    ) -> Outcome {
        if let Scope::Agency(agency) = &scope
            && self.live.roster().row(agency).is_none()
        {
            return Ok(refused(format!("{agency} is not in the roster; see roster show")));
        }
        let former = self.live.policies();
        let decision = Decision::after(former.decision(&scope), terms, words, at)?;
        let in_words = policy_words(&decision.terms);
        let laxer = decision.terms.laxer();
        let all = self.store.put_policy(scope.clone(), decision, in_words.clone()).await?;
        self.live.replace_policies(all.into_iter().collect());
        let mut said = format!("asked of {}: {in_words}\n", whom(&scope));
        if !laxer.is_empty() {
            said.push_str(&format!("less than the catalogue asks: {}\n", laxer.join(", ")));
        }
        Ok(done(said))
    }

    pub(super) fn policy_show(&self, scope: &Scope) -> AdminAnswer {
        if let Scope::Agency(agency) = scope
            && self.live.roster().row(agency).is_none()
        {
            return refused(format!("{agency} is not in the roster; see roster show"));
        }
        done(policy_table(&self.live.policies(), scope))
    }

    pub(super) fn policy_list(&self) -> AdminAnswer {
        done(decision_table(&self.live.policies().decided()))
    }
}

fn whom(scope: &Scope) -> String {
    match scope {
        Scope::All => "all agencies".into(),
        Scope::Agency(agency) => agency.to_string(),
    }
}

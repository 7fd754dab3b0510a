//! Exceptions and policies, as an operator decides them.

use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::posture::CheckId;

use super::answer::{done, exception_table, moment, refused};
use super::operator::{Operator, Outcome};
use crate::posture::{Exception, ExceptionTerms, Policy};

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
        self.live.replace_exceptions(all.into_iter().collect()).await?;
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
        self.live.replace_exceptions(left.into_iter().collect()).await?;
        Ok(done(format!("{check} of {agency} is accepted no more\n")))
    }

    pub(super) async fn policy_set(
        &self,
        agency: AgencyId,
        score_min: u8,
        at: SystemTime,
    ) -> Outcome {
        if self.live.roster().row(&agency).is_none() {
            return Ok(refused(format!("{agency} is not in the roster; see roster show")));
        }
        let policy = Policy::new(score_min)?;
        let said = format!("machines of {agency} comply from a score of {score_min}\n");
        let all = self.store.put_policy(agency, policy, at).await?;
        self.live.replace_policies(all.into_iter().collect()).await?;
        Ok(done(said))
    }
}

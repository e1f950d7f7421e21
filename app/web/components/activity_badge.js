// The number of running jobs of the collection, at the link to the activity.
// The page asks again while there are some.

import { isUnfinished, listJobs } from "../api/client.js";
import { translate, translateCount } from "../i18n/i18n.js";
import { byId } from "./dom.js";

const POLL_MS = 3000;
let timer = 0;

export function watchActivity() {
  document.addEventListener("visibilitychange", () => !document.hidden && updateActivity());
  updateActivity();
}

/** `jobs`: those of the collection, if the caller knows them. */
export async function updateActivity(jobs = null) {
  clearTimeout(timer);
  const known = jobs ?? (await listJobs().then((answer) => answer.jobs, () => []));
  const n = known.filter((job) => isUnfinished(job) && job.state !== "paused").length;
  const link = byId("jobs-link");
  byId("running-jobs").textContent = n;
  byId("running-jobs").hidden = !n;
  link.title = n ? translateCount("jobs_running", n) : translate("jobs");
  link.ariaLabel = link.title;
  clearTimeout(timer);
  if (n && !document.hidden) timer = setTimeout(updateActivity, POLL_MS);
}

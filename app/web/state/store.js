// What the page knows at this moment. Only main.js changes it.
// The address holds all of `state` that outlives a reload.

import { ResultList } from "./result_list.js";
import { readState } from "./url_state.js";

export const store = {
  state: readState(),
  results: new ResultList(null), // of the search that is shown
  shownKey: null, // the search key of these results, null to search again
  request: null, // the AbortController of the search that runs
  typedAt: 0, // when the user last changed the words or the weight, 0 once the change is settled
  scrollTimer: 0,
  pictureToFocus: null, // after Back has closed its detail
};

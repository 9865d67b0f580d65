"""What the collector answers, as models: what the API's JSON and its documentation show."""

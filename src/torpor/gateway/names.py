"""Names that the gateway's files have to agree on."""

from __future__ import annotations

_TYPE = "type.googleapis.com/"
CLUSTER = _TYPE + "envoy.config.cluster.v3.Cluster"
ASSIGNMENT = _TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTES = _TYPE + "envoy.config.route.v3.RouteConfiguration"

PUBLIC_ROUTES = "public"  # the route table of the public listener
PUBLIC_LISTENER = "public"
INTERNAL_LISTENER = "internal"
FUNCTION_HEADER = "torpor-function"  # key of the function that a request is for
INSTANCE_HEADER = "torpor-instance"  # of an answer to the platform's own parts: the id of who gave it
METADATA = "torpor"  # where an endpoint's metadata has "instance"
PREFIX_HEADER = "x-forwarded-prefix"  # what was cut off the path
OWN_HEADERS = "torpor-"  # how headers begin that nobody outside may set

# A function's cluster is called by its key, which has a "/"; a part of the platform by its name, without one.

# What certainly no instance has seen: no connection came to be, it ended before the request was written to
# it, or the instance said that it did not begin (RFC 9113, section 8.7). So it is safe for every method.
RETRY_ON = "connect-failure,reset-before-request,refused-stream"
CONNECT_RETRIES = 10  # with Envoy's back-off of up to 250 ms
HOLD_SECONDS = 60.0  # how long a request may be held while its function starts
# Envoy closes an idle connection to an instance before the instance would: uvicorn does after 5 s.
UPSTREAM_IDLE_SECONDS = 4.0

"""The controller: brings a cluster to what Functions and Triggers declare, and says in them how it is."""

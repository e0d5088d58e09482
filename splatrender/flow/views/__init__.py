"""The objective of photos: its value, the costs of removals and the gains of insertions."""

"""Generator of the bundled still life: procedural meshes and textures, path traced by Mitsuba 3."""

"""Tables of trainings: recipes, their results, and what these say."""

"""Which tile to label next, what that was worth, and when to stop. numpy only: models are somebody else's."""

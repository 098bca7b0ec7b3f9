"""The page of the studio, by Gradio: the only rooms of the house in which Gradio is imported."""

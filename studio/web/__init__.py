"""The page of the studio, by Gradio: the only package in which Gradio is imported."""

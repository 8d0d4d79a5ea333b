"""The app: a local web page that samples, edits and explains trained models.

Gradio draws the page and calls the functions of this room, which call the library.
"""

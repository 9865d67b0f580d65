"""The pytest plugin: fails tests whose event loop was blocked, and says where. See docs/pytest.md.

A package of its own beside `aiocop`: pytest imports every installed plugin in every run, and this one must not bring
the agent along before somebody asks for it. `plugin` holds the options and loads `watch`, which has the agent.
"""

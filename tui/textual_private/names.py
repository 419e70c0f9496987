"""Textual's private names that this package uses, and the version that they belong to."""

from __future__ import annotations

VERSION = "8.2.8"
MODULES = (
    "textual._compositor",
    "textual._parser",
    "textual._styles_cache",
    "textual._xterm_parser",
)
# By class, as module:class. A tuple: a method with these parameters. None: an attribute.
USED: dict[str, dict[str, tuple[str, ...] | None]] = {
    "textual.app:App": {
        "_batch_count": None,
        "_close_messages_no_wait": (),
        "_driver": None,
        "_exit": None,
        "_fatal_error": (),
        "_handle_exception": ("error",),
        "_notifications": None,
        "_suspend_signal": (),
        "_unnotify": ("notification",),
    },
    "textual.screen:Screen": {
        "_compositor": None,
        "_compositor_refresh": (),
        "_dirty_widgets": None,
        "_layout_required": None,
    },
    "textual._compositor:Compositor": {
        "_dirty_regions": None,
        "_regions_to_spans": ("regions",),
        "render_partial_update": (),
        "render_update": ("full", "screen_stack", "simplify"),
        "update_widgets": ("widgets",),
        "visible_widgets": None,
    },
    "textual._compositor:CompositorUpdate": {"render_segments": ("console",)},
    "textual._styles_cache:StylesCache": {"get_inner_outer": ("base_background", "background")},
    "textual.widget:Widget": {"_styles_cache": None},
    "textual.dom:DOMNode": {"_attach": ("parent",)},
    "textual._parser:ParseError": {},
    "textual._xterm_parser:XTermParser": {"feed": ("data",), "tick": ()},
    "textual.drivers.linux_driver:LinuxDriver": {
        "_app": None,
        "_debug": None,
        "_disable_mouse_support": (),
        "_enable_mouse_support": (),
        "_file": None,
        "_mouse": None,
        "_must_signal_resume": None,
        "_run_input_thread": (),
        "run_input_thread": (),
    },
}

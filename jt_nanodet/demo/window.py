"""A window for ``--show``, made with Tk: the pinned OpenCV is the headless one, so that the demo works where there is no display."""

from __future__ import annotations

import cv2
import numpy as np

from jt_nanodet.errors import UserError


class Window:
    """Shows pictures; q, Escape or closing it ends the demo."""

    def __init__(self, title: str):
        try:
            import tkinter
        except ImportError:
            raise UserError("this Python has no tkinter for a window; type: apt-get install python3-tk, or leave out --show and use --save") from None
        try:
            self.root = tkinter.Tk()
        except tkinter.TclError:
            raise UserError("there is no display for a window here; leave out --show and use --save") from None
        self.tk, self.closed, self.pressed = tkinter, False, False
        self.root.title(title)
        self.label = tkinter.Label(self.root)
        self.label.pack()
        self.root.protocol("WM_DELETE_WINDOW", self._close)
        self.root.bind("<Key>", self._key)

    def show(self, picture: np.ndarray, wait: bool) -> bool:
        """Put up a picture, smaller where the screen is; with ``wait`` until a key. Returns False once the user has ended it."""
        if self.closed:
            return False
        room = min(self.root.winfo_screenwidth() * 0.9 / picture.shape[1], self.root.winfo_screenheight() * 0.85 / picture.shape[0])
        if room < 1:
            picture = cv2.resize(picture, None, fx=room, fy=room, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".ppm", picture)[1].tobytes()
        self.image = self.tk.PhotoImage(data=data)  # kept: Tk itself holds no reference
        self.label.configure(image=self.image)
        self.pressed = False
        self.root.update()
        while wait and not (self.pressed or self.closed):
            self.root.update()
            self.root.after(20)
        return not self.closed

    def close(self) -> None:
        if not self.closed:
            self._close()

    def _close(self) -> None:
        self.closed = True
        self.root.destroy()

    def _key(self, event) -> None:
        self.pressed = True
        if event.keysym in ("q", "Escape"):
            self._close()

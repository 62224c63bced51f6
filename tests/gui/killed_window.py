"""Opens the window on a project, its Queue tab in front, and ranks again and again until it is killed."""

import sys

import napari
from gui_helpers import open_dock


def main(root: str) -> None:
    viewer = napari.Viewer()
    dock = open_dock(viewer, size=(1000, 800))
    dock.session.open_project(root)

    def tell(state) -> None:
        sys.stdout.write(f"{state.phase} {len(state.entries)} {state.n_scored} {state.n_tiles}\n")
        sys.stdout.flush()
        if state.phase == "ready" and state.entries:
            dock.queue_panel.rank_button.click()

    dock.owner.bridge.connect(dock.session.signals.queue_changed, tell)
    dock.choose_tab("Queue")
    napari.run()


if __name__ == "__main__":
    main(sys.argv[1])

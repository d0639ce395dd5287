"""From a file to a canvas: pictures, clips, faces, and where pixels are kept."""
